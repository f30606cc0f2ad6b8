import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

const made: string[] = [];
after(() => {
  for (const dir of made) rmSync(dir, { recursive: true, force: true });
});

/** A project of its own with a copy of the script, and an npm that only writes down how it was called. */
function project(npm_script: string | null): {
  root: string;
  run: () => { status: number | null; said: string };
  calls: () => string[];
} {
  const root = mkdtempSync(path.join(os.tmpdir(), 'kiln-install-'));
  made.push(root);
  mkdirSync(path.join(root, 'scripts'));
  mkdirSync(path.join(root, 'bin'));
  copyFileSync(path.join(import.meta.dirname, 'install.mjs'), path.join(root, 'scripts', 'install.mjs'));
  writeFileSync(path.join(root, 'package.json'), '{}');
  writeFileSync(path.join(root, 'package-lock.json'), '{"v":1}');
  if (npm_script !== null) {
    const npm = path.join(root, 'bin', 'npm');
    writeFileSync(npm, `#!/bin/sh\necho "$@" >> "${root}/calls"\n${npm_script}\n`);
    chmodSync(npm, 0o755);
  }
  return {
    root,
    run: () => {
      // Nothing but the fake npm and sh can be found.
      const PATH = npm_script === null ? path.join(root, 'bin') : `${path.join(root, 'bin')}:/bin:/usr/bin`;
      const done = spawnSync(process.execPath, [path.join(root, 'scripts', 'install.mjs')], {
        env: { PATH },
        encoding: 'utf8',
      });
      return { status: done.status, said: done.stdout + done.stderr };
    },
    calls: () => {
      const file = path.join(root, 'calls');
      return existsSync(file)
        ? readFileSync(file, 'utf8')
            .trim()
            .split('\n')
            .map((line) => line.split(' ')[0]!)
        : [];
    },
  };
}

test('installs once, says so in one line, and then does and says nothing', () => {
  const it = project('mkdir -p node_modules');
  const first = it.run();
  assert.equal(first.status, 0);
  assert.equal(first.said.trim().split('\n').length, 1);
  assert.deepEqual(it.run(), { status: 0, said: '' });
  assert.deepEqual(it.calls(), ['ci', 'rebuild']);
});

test('installs again when the lock file has changed', () => {
  const it = project('mkdir -p node_modules');
  it.run();
  writeFileSync(path.join(it.root, 'package-lock.json'), '{"v":2}');
  assert.match(it.run().said, /package-lock\.json has changed/);
  assert.deepEqual(it.calls(), ['ci', 'rebuild', 'ci', 'rebuild']);
});

test('tries a second time before it gives up on the lock file', () => {
  const it = project('[ $(wc -l < calls) -ge 2 ] || { echo ECONNRESET >&2; exit 1; }');
  assert.equal(it.run().status, 0);
  assert.deepEqual(it.calls(), ['ci', 'ci', 'rebuild']);
});

test('a lock file out of step goes straight to npm install', () => {
  const it = project('case "$1" in ci) echo "npm error code EUSAGE" >&2; exit 1;; esac');
  assert.equal(it.run().status, 0);
  assert.deepEqual(it.calls(), ['ci', 'install', 'rebuild']);
});

test('explains a failure, and does not count it as installed', () => {
  const it = project('echo "getaddrinfo ENOTFOUND registry.npmjs.org" >&2; exit 1');
  const { status, said } = it.run();
  assert.equal(status, 1);
  assert.match(said, /ENOTFOUND/);
  assert.match(said, /registry is not reachable/);
  assert.ok(!existsSync(path.join(it.root, 'node_modules', '.kiln-installed')));
});

test('says so when there is no npm', () => {
  const { status, said } = project(null).run();
  assert.equal(status, 1);
  assert.match(said, /no npm in PATH/);
});

test('keeps what somebody installed by hand', () => {
  const it = project('exit 1');
  mkdirSync(path.join(it.root, 'node_modules'));
  writeFileSync(path.join(it.root, 'node_modules', '.package-lock.json'), '{}');
  assert.deepEqual(it.run(), { status: 0, said: '' });
  assert.deepEqual(it.calls(), []);
});

test('a lock file that npm install rewrote counts as installed', () => {
  const it = project(
    `case "$1" in ci) echo EUSAGE >&2; exit 1;; *) echo '{"v":3}' > package-lock.json;; esac`,
  );
  it.run();
  assert.deepEqual(it.run(), { status: 0, said: '' });
});

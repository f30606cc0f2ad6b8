import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { tempDir } from '../../../test/support/folders.ts';
import type { ImageBuildSpec } from '../image-builder.ts';
import { buildctlArguments, checkImageBuild, dockerBuildArguments, scopeOf } from './argv.ts';
import { connectionArguments } from './buildctl.ts';
import { dockerfileInVmScript } from './in-vm.ts';
import { testSpec } from './self-test.ts';

const NASTY = `a b"c'd$(touch /tmp/pwned);\`x\`\n--help`;

function specOf(o: Partial<ImageBuildSpec> = {}): ImageBuildSpec {
  return { ...testSpec('/src'), on_output: () => undefined, ...o };
}

describe('command lines of Dockerfile builds', () => {
  const full = specOf({
    ...{ dockerfile: 'deploy/Dockerfile.prod', target: 'prod', build_args: { A: NASTY }, cache_key: 'dep_1' },
    ...{ secrets: { TOKEN: 'hush' }, source_date_epoch: 7, network: { mode: 'open', allow: [] } },
  });
  const files = { secrets: { TOKEN: '/work/1/secrets/0' }, scope: 'scope1' };

  it('docker: one word per argument, the secret’s value in none', () => {
    assert.deepEqual(dockerBuildArguments(full, files, 'tag:1'), [
      ...['build', '--progress=plain', '--tag=tag:1', '--file=/src/deploy/Dockerfile.prod', '--target=prod'],
      ...[
        `--build-arg=A=${NASTY}`,
        '--build-arg=SOURCE_DATE_EPOCH=7',
        '--build-arg=BUILDKIT_CACHE_MOUNT_NS=scope1',
      ],
      ...[
        '--secret=id=TOKEN,src=/work/1/secrets/0',
        '--add-host=scope1.build.kiln.invalid:127.0.0.1',
        '--',
        '/src',
      ],
    ]);
  });

  it('buildctl: the folder of the Dockerfile is its own input, timestamps are rewritten', () => {
    assert.deepEqual(buildctlArguments(full, files), [
      ...['build', '--progress=plain', '--frontend=dockerfile.v0', '--local=context=/src'],
      ...['--local=dockerfile=/src/deploy', '--opt=filename=Dockerfile.prod', '--opt=target=prod'],
      ...[`--opt=build-arg:A=${NASTY}`, '--opt=build-arg:SOURCE_DATE_EPOCH=7'],
      ...['--opt=build-arg:BUILDKIT_CACHE_MOUNT_NS=scope1', '--secret=id=TOKEN,src=/work/1/secrets/0'],
      '--opt=add-hosts=scope1.build.kiln.invalid=127.0.0.1',
      '--output=type=oci,dest=/src/image.tar,rewrite-timestamp=true',
    ]);
  });

  it('no key: nothing reused, and nothing left for others; no network: none for steps', () => {
    const args = dockerBuildArguments(specOf(), files, 't');
    assert.ok(args.includes('--no-cache') && args.includes('--network=none'));
    assert.ok(buildctlArguments(specOf(), files).includes('--opt=force-network-mode=none'));
    assert.notEqual(scopeOf({ cache_key: null, id: 'a' }), scopeOf({ cache_key: null, id: 'b' }));
    assert.equal(scopeOf({ cache_key: 'k', id: 'a' }), scopeOf({ cache_key: 'k', id: 'b' }));
    assert.notEqual(scopeOf({ cache_key: 'a', id: 'a' }), scopeOf({ cache_key: null, id: 'a' }));
  });

  it('buildctl over TCP wants mutual TLS', () => {
    assert.deepEqual(connectionArguments({ addr: 'unix:///run/b.sock' }), ['--addr=unix:///run/b.sock']);
    assert.throws(() => connectionArguments({ addr: 'tcp://pool:1234' }), /needs a CA/);
    assert.throws(() => connectionArguments({ addr: 'ssh://x' }), /is at unix/);
    const tls = { ca_file: '/ca', cert_file: '/c', key_file: '/k' };
    const words = ['--addr=tcp://pool:1234', '--tlscacert=/ca', '--tlscert=/c', '--tlskey=/k'];
    assert.deepEqual(connectionArguments({ addr: 'tcp://pool:1234', tls }), words);
  });
});

describe('what is refused before a build starts', async () => {
  const dir = await tempDir('dockerfile');
  after(() => rm(dir, { recursive: true, force: true }));
  const context_dir = path.join(dir, 'src');
  await mkdir(context_dir);
  await writeFile(path.join(dir, 'vault.key'), 'secret');
  await symlink('../vault.key', path.join(context_dir, 'link'));
  await writeFile(path.join(context_dir, 'Dockerfile'), 'FROM scratch');
  const refuses = (o: Partial<ImageBuildSpec>, why: RegExp) =>
    it(`${why}`, () => assert.rejects(checkImageBuild(specOf({ context_dir, ...o })), why));
  refuses({ dockerfile: '../vault.key' }, /outside the source/);
  refuses({ dockerfile: '/etc/passwd' }, /outside the source/);
  refuses({ dockerfile: 'link' }, /link that leads out/);
  refuses({ build_args: { 'A=B': '' } }, /no name for a build argument/);
  refuses({ secrets: { 'A,src=/etc/shadow': '' } }, /no name for a build argument or secret/);
  refuses({ target: '--x' }, /no name of a stage/);
  it('and what is not', () => checkImageBuild(specOf({ context_dir, build_args: { A: NASTY } })));
});

describe('the script for a build in a microVM', () => {
  const vm = {
    ...{ context_dir: "/workspace/it's", scratch_dir: '/scratch', secrets_dir: '/run/secrets' },
    ...{ out_file: '/out/image.tar', proxy_url: 'http://127.0.0.1:3128', daemon_patience_s: 30 },
  };

  /** Runs it with programs that write down their arguments. */
  async function trace(script: string, status = 0): Promise<{ calls: string[][]; code: number }> {
    const dir = await tempDir('in-vm');
    try {
      const shim = (name: string, body: string) =>
        writeFile(
          path.join(dir, name),
          `#!/bin/sh\n{ printf '%s\\0' ${name} "$@"; echo; } >> ${dir}/calls\n${body}\n`,
          { mode: 0o755 },
        );
      await shim('dockerd', 'exec sleep 60');
      await shim('docker', `[ "$1" != build ] || exit ${status}`);
      await shim('mountpoint', 'exit 0');
      await shim('mkdir', 'exit 0');
      await writeFile(path.join(dir, 'calls'), '');
      const local = script.replace('export PATH=', `export PATH=${dir}:`).replaceAll("'/scratch", `'${dir}`);
      let code = 0;
      try {
        execFileSync('sh', ['-c', local], { stdio: ['ignore', 'ignore', 'inherit'], timeout: 20_000 });
      } catch (error) {
        code = (error as { status: number }).status;
      }
      const text = execFileSync('cat', [path.join(dir, 'calls')], { encoding: 'utf8' });
      const calls = text
        .split('\0\n')
        .filter(Boolean)
        .map((line) => line.split('\0'));
      return { calls, code };
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  it('quotes everything, builds, saves, and ends its daemon', async () => {
    const spec = specOf({
      build_args: { A: NASTY },
      secrets: { TOKEN: 'hush' },
      target: 'prod',
      network: { mode: 'open', allow: [] },
    });
    const script = dockerfileInVmScript(spec, vm);
    assert.ok(!script.includes('hush'));
    const { calls, code } = await trace(script);
    assert.equal(code, 0);
    const build = calls.find((call) => call[1] === 'build')!;
    assert.ok(build.includes(`--build-arg=A=${NASTY}`));
    assert.ok(build.includes('--secret=id=TOKEN,src=/run/secrets/TOKEN') && build.includes('--network=host'));
    assert.ok(build.includes('--build-arg=https_proxy=http://127.0.0.1:3128'));
    assert.deepEqual(build.slice(-2), ['--', "/workspace/it's"]);
    assert.deepEqual(calls.at(-1), ['docker', 'save', '--output', '/out/image.tar', 'kiln-build:image']);
    assert.deepEqual(execFileSync('sh', ['-c', 'ls /tmp | grep -x pwned || true'], { encoding: 'utf8' }), '');
  });

  it('gives the build’s own status and saves nothing when it failed', async () => {
    const { calls, code } = await trace(dockerfileInVmScript(specOf(), vm), 3);
    assert.equal(code, 3);
    assert.ok(!calls.some((call) => call[1] === 'save'));
  });

  it('has no network for steps without a policy that allows one', () => {
    assert.match(dockerfileInVmScript(specOf(), vm), /'--network=none'/);
    const open = specOf({ network: { mode: 'open', allow: [] } });
    assert.match(dockerfileInVmScript(open, { ...vm, proxy_url: null }), /'--network=none'/);
  });
});

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, rmdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { makeVault } from '../store/vault.ts';
import { engineLog } from './engine-log.ts';
import { KnownSecrets } from './known-secrets.ts';

async function withLog(
  run: (at: {
    file: string;
    secrets: KnownSecrets;
    open: (max_bytes?: number) => ReturnType<typeof engineLog>;
  }) => Promise<void>,
): Promise<void> {
  const dir = await tempDir('engine-log');
  const file = path.join(dir, 'logs', 'engine.log');
  const secrets = new KnownSecrets();
  const redact = (text: string) => secrets.redact(text);
  try {
    await run({
      ...{ file, secrets },
      open: (max_bytes) => engineLog({ file, level: 'info', redact, ...(max_bytes ? { max_bytes } : {}) }),
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const linesOf = async (file: string) =>
  (await readFile(file, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { msg: string; error?: string });

test('keeps to its bound, over restarts too, and the newest lines', () =>
  withLog(async ({ file, open }) => {
    const max_bytes = 20_000;
    for (let start = 0; start < 3; start++) {
      const say = open(max_bytes);
      for (let n = 0; n < 200; n++) say('info', `line ${start} ${n}`, { why: 'x'.repeat(100) });
    }
    assert.deepEqual((await readdir(path.dirname(file))).sort(), ['engine.log', 'engine.log.1']);
    for (const name of [file, `${file}.1`]) assert.ok((await stat(name)).size <= max_bytes / 2, name);
    assert.equal((await linesOf(file)).at(-1)!.msg, 'line 2 199');
  }));

test('values of secret variables are redacted, in messages, data and errors', () =>
  withLog(async ({ file, secrets, open }) => {
    const vault = secrets.watch(makeVault(Buffer.alloc(32)));
    const env = { vars: { TOKEN: 'hush-1\n"two"', PORT: '3000' }, secret_names: ['TOKEN'] };
    const sealed = vault.seal(JSON.stringify(env), 'version:ver_1:run');
    assert.equal(vault.open(sealed, 'version:ver_1:run'), JSON.stringify(env));
    vault.seal('whsec-hush-3', 'webhook-secret:wh_1');
    vault.seal(JSON.stringify({ API_KEY: 'hush-4', NAME: 'plain' }), 'sandbox-env:sbx_1');
    const say = open();
    say('warn', `it said hush-4 and whsec-hush-3 on port 3000`, {
      error: `Error: refused hush-1\n"two" of plain`,
      list: [{ inner: 'hush-1\n"two"' }],
    });
    const text = await readFile(file, 'utf8');
    assert.ok(!text.includes('hush'), text);
    assert.match(text, /port 3000/);
    assert.match(text, /of plain/);
  }));

test('goes on when the disk takes lines again, and says how many are missing', () =>
  withLog(async ({ file, open }) => {
    await mkdir(file, { recursive: true }); // a folder takes no lines
    const say = open();
    say('info', 'one');
    say('info', 'two');
    await rmdir(file);
    say('info', 'three');
    assert.deepEqual(
      (await linesOf(file)).map(({ msg }) => msg),
      ['2 lines are missing here: the disk did not take them', 'three'],
    );
  }));

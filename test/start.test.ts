/** What starts side by side: whichever part fails, its own words come out, and the folder is free for the next start. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { type Flags, tempDir } from './support/folders.ts';
import { startKiln } from './support/kiln.ts';

let dir: string;
before(async () => {
  dir = await tempDir('start');
});
after(() => rm(dir, { recursive: true }));

const refused = async (flags: Flags, says: RegExp) => {
  await assert.rejects(startKiln(flags, dir), says);
  assert.ok(!existsSync(path.join(dir, 'kiln.lock')), 'the lock is given back');
};

test('a driver that was asked for and does not work, or a database that is not there, is an error at once', async () => {
  await refused(
    { isolation: 'qemu' },
    /^KilnError: Code cannot be run here with isolation `qemu`\. qemu: there is no builder image yet\. Run `kiln builder-image build`\. Or/,
  );
  await refused(
    { database: 'postgres://127.0.0.1:1/kiln' },
    /The database at 127\.0\.0\.1:1\/kiln cannot be used: .*ECONNREFUSED/,
  );
  await refused(
    { isolation: 'qemu', database: 'postgres://127.0.0.1:1/kiln' },
    /isolation `qemu`|cannot be used/,
  );
});

test('the folder then serves, and what was remembered of programs may be broken', async () => {
  const remembered = path.join(dir, 'cache', 'answers', 'programs.json');
  for (const text of [null, '{"format":1,"answers":{"']) {
    if (text !== null) await writeFile(remembered, text);
    const kiln = await startKiln({ isolation: 'auto', 'log-level': 'info' }, dir);
    try {
      const { isolation, ok } = await kiln.ask('GET', '/doctor');
      assert.ok(ok);
      const names = isolation.drivers.filter((one: { job: string }) => one.job === 'host');
      assert.deepEqual(
        names.map((one: { name: string; in_use: boolean }) => [one.name, one.in_use]),
        [
          ['bubblewrap', isolation.host === 'bubblewrap'],
          ['process', isolation.host === 'process'],
        ],
        'the doctor tries what the start did not need',
      );
    } finally {
      await kiln.close();
    }
  }
  const log = (await readFile(path.join(dir, 'logs', 'engine.log'), 'utf8')).trim().split('\n');
  const ready = log.map((line) => JSON.parse(line)).find((line) => line.msg === 'ready');
  assert.deepEqual(Object.keys(ready.after_ms).sort(), [
    'database',
    'loaded',
    'machines',
    'ready',
    'recovered',
  ]);
});

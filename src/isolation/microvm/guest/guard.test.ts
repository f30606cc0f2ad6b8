import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { arch } from 'node:process';
import { after, describe, it } from 'node:test';
import { tempDir } from '../../../../test/support/folders.ts';
import { GUARD_CODE, guardProgram } from './guard.ts';

describe('the guard of instances', async () => {
  const dir = await tempDir('guard');
  after(() => rm(dir, { recursive: true, force: true }));

  it('is what its source says', (t) => {
    if (spawnSync('as', ['--version']).error || arch !== 'x64') return t.skip('no assembler for x86-64 here');
    const [object, code] = [join(dir, 'guard.o'), join(dir, 'guard.bin')];
    execFileSync('as', ['--64', '-o', object, join(import.meta.dirname, 'guard.s')]);
    execFileSync('objcopy', ['-O', 'binary', '-j', '.text', object, code]);
    assert.equal(readFileSync(code).toString('hex'), GUARD_CODE);
  });

  it('starts nothing when it cannot do its work', async (t) => {
    if (arch !== 'x64') return t.skip('the guard is for x86-64');
    await writeFile(join(dir, 'guard'), guardProgram(), { mode: 0o755 });
    // A folder that is no control group takes no filter, whoever asks.
    const { status, stdout, stderr } = spawnSync(join(dir, 'guard'), [dir, '/bin/echo', 'ESCAPED']);
    assert.equal(status, 126);
    assert.equal(String(stdout), '');
    assert.match(
      String(stderr),
      /^\[kiln\] the rights of this instance could not be limited, so it was not started\n$/,
    );
  });
});

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { readUntrustedFile } from './untrusted-file.ts';

describe('files that untrusted code controls', async () => {
  const dir = await tempDir('untrusted');
  after(() => rm(dir, { recursive: true, force: true }));
  const at = (name: string) => join(dir, name);

  it('reads plain files, so far and no further', async () => {
    await writeFile(at('hosts'), '127.0.0.1 a\n');
    assert.equal(readUntrustedFile(at('hosts'), 1000), '127.0.0.1 a\n');
    assert.equal(readUntrustedFile(at('hosts'), 9), '127.0.0.1');
    assert.equal(readUntrustedFile('/proc/self/status', 5), 'Name:');
  });

  it('waits for nobody, follows no link, uses no device, and leaves nothing open', async () => {
    execFileSync('mkfifo', [at('fifo')]);
    await mkdir(at('folder'));
    await symlink('/etc/passwd', at('link'));
    const open_before = readdirSync('/proc/self/fd').length;
    for (const path of [at('fifo'), at('folder'), at('link'), '/dev/zero', at('none'), at('fifo/x')])
      assert.equal(readUntrustedFile(path, 1000), null, path);
    assert.equal(readdirSync('/proc/self/fd').length, open_before);
  });
});

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { afterEach, it, mock } from 'node:test';
import { scratch } from './tree.fixtures.ts';
import { Unpacker } from './unpack.ts';

afterEach(() => {
  mock.restoreAll();
  syncBuiltinESMExports();
});

it('a full disk is told with the entry that it met, and what to do', async () => {
  await using temporary = await scratch();
  const limits = { max_bytes: 1e6, max_files: 10 };
  const unpacker = new Unpacker({ into: temporary.dir, below: '', limits, strip_prefix: '', umask: 0o022 });
  try {
    unpacker.entry({ name: 'a/big.bin', type: 'file', size: 3, mode: 0o644, link: '' });
    mock.method(fs, 'writeSync', () => {
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    });
    syncBuiltinESMExports();
    assert.throws(() => unpacker.data(Buffer.from('big')), {
      code: 'STORAGE_FAILED',
      message: /"a\/big\.bin" failed \(ENOSPC\).*free disk space.*again/,
    });
  } finally {
    unpacker.close();
  }
});

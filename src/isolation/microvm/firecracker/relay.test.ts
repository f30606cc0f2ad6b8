import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { findProgram } from '../../program.ts';
import { readLibraries, relayFiles } from './relay.ts';

const LDD = `	linux-vdso.so.1 (0x00007ffe2b5f2000)
	libwrap.so.0 => /lib/x86_64-linux-gnu/libwrap.so.0 (0x00007f2d1a9c1000)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2d1a200000)
	/lib64/ld-linux-x86-64.so.2 (0x00007f2d1aa8d000)
`;

describe("the guest's relay", () => {
  it('is made of the libraries that ldd names', () => {
    assert.deepEqual(readLibraries(LDD), [
      '/lib/x86_64-linux-gnu/libc.so.6',
      '/lib/x86_64-linux-gnu/libwrap.so.0',
      '/lib64/ld-linux-x86-64.so.2',
    ]);
    assert.deepEqual(readLibraries('\tnot a dynamic executable\n\tlibx.so => not found\n'), []);
  });

  it('runs from its own folder alone, and knows vsock', async (t) => {
    const socat = findProgram('socat');
    if (socat === null) return t.skip('socat is not installed');
    const dir = await mkdtemp(join(tmpdir(), 'kiln-relay-'));
    t.after(() => rm(dir, { recursive: true, force: true }));
    const entries = await relayFiles(socat);
    for (const { path, data, mode } of entries) {
      const target = join(dir, path);
      if (data === null) await mkdir(target);
      else {
        await mkdir(dirname(target), { recursive: true });
        await writeFile(target, data, { mode: mode & 0o777 });
      }
    }
    const relay = join(dir, 'relay');
    const run = (...args: string[]) =>
      execFileSync(
        join(relay, 'ld.so'),
        ['--inhibit-cache', '--library-path', relay, join(relay, 'socat'), ...args],
        { encoding: 'utf8', timeout: 10_000 },
      );
    const loaded = execFileSync(
      join(relay, 'ld.so'),
      ['--inhibit-cache', '--library-path', relay, '--list', join(relay, 'socat')],
      { encoding: 'utf8' },
    );
    for (const path of readLibraries(loaded))
      assert.ok(path.startsWith(dir), `${path} is not in the archive`);
    if (!/WITH_VSOCK 1/.test(run('-V'))) return t.skip('the socat here was built without vsock');
    assert.equal(run('-u', 'EXEC:/bin/echo carried', '-'), 'carried\n');
    execFileSync('sh', ['-n', join(dir, 'hypervisor.sh')]);
    const bytes = entries.reduce((sum, entry) => sum + (entry.data?.length ?? 0), 0);
    t.diagnostic(`${entries.length} entries, ${(bytes / 1e6).toFixed(1)} MB`);
  });
});

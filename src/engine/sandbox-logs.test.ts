import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { readLog } from '../store/logs.ts';
import type { EngineContext } from './context.ts';
import { SandboxLogs } from './sandbox-logs.ts';

test('a command that starts while the log of the last one is closing writes after it', async () => {
  const sandboxes = await tempDir('sandbox-logs');
  try {
    await mkdir(path.join(sandboxes, 'sbx_1'));
    const said: unknown[] = [];
    const logs = new SandboxLogs({
      folders: { sandboxes },
      say: (...of: unknown[]) => said.push(of),
    } as unknown as EngineContext);
    const ends: Promise<void>[] = [];
    for (let n = 0; n < 5; n++) {
      const command = logs.command('sbx_1', {});
      for (let line = 0; line < 1000; line++)
        command.write('stdout', Buffer.from(`${n} ${line} ${'x'.repeat(500)}\n`));
      ends.push(command.end());
    }
    await Promise.all(ends);
    const { lines } = await readLog(logs.path('sbx_1'));
    const expected = Array.from({ length: 5000 }, (_, at) => `${Math.floor(at / 1000)} ${at % 1000}`);
    assert.deepEqual(
      lines.map(({ l }) => l.split(' ', 2).join(' ')),
      expected,
    );
    assert.deepEqual(said, []);
  } finally {
    await rm(sandboxes, { recursive: true, force: true });
  }
});

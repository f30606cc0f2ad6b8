import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { IsolationDriver } from './driver.ts';
import { removeTree } from './scratch.ts';

const MIB = 1024 * 1024;

/** Runs one command in a throw-away machine; its trimmed output, or why there is none. Never rejects. */
export async function runForTest(
  driver: Pick<IsolationDriver, 'start'>,
  work_dir: string,
  command: string,
): Promise<string> {
  const id = `selftest_${randomBytes(8).toString('hex')}`;
  const workspace_dir = join(work_dir, `${id}_workspace`);
  let output = '';
  try {
    await mkdir(workspace_dir, { recursive: true });
    const machine = await driver.start({
      id,
      kind: 'exec',
      workspace_dir,
      cwd: '.',
      command,
      env: {},
      limits: {
        time_ms: 10_000,
        memory_bytes: 256 * MIB,
        processes: 64,
        disk_bytes: 16 * MIB,
        log_bytes: MIB,
        on_log_limit: 'kill',
      },
      on_output: (_, chunk) => {
        output += chunk.toString('utf8');
      },
    });
    const { exit_code, reason } = await machine.exited;
    if (exit_code === 0) return output.trim();
    return `${output.trim()} (${reason}, exit ${exit_code})`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    await removeTree(workspace_dir);
  }
}

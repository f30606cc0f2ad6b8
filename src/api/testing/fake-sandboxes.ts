/** The files of the fake engine: real folders, copies and images; commands without isolation. */
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Release } from '../../domain/release.ts';
import type { Engine, ExecRequest } from '../../engine/engine.ts';
import { exportRelease, type PushRequest, pushRelease } from '../../engine/images.ts';
import { discardSandbox, fillSandbox, snapshotSandbox } from '../../engine/sandbox-snapshots.ts';
import type { Database } from '../../store/db.ts';
import { fileObjectStore } from '../../store/objects/files.ts';
import { setSandboxState } from '../../store/sandbox.ts';
import { transact } from '../../store/transact.ts';

type Machine = Awaited<ReturnType<Engine['exec']>>;
type MachineExit = Awaited<Machine['exited']>;

export class FakeSandboxes {
  protected readonly database: Database;
  readonly dir: string;

  constructor(of: { database: Database; dir: string }) {
    this.database = of.database;
    this.dir = of.dir;
  }

  async workspaceDir(sandbox: { id: string }): Promise<string> {
    const dir = path.join(this.dir, 'sandboxes', sandbox.id, 'workspace');
    await mkdir(dir, { recursive: true });
    return dir;
  }

  async destroySandbox(sandbox: Parameters<Engine['destroySandbox']>[0]): Promise<void> {
    await transact(this.database.db, (trx) => setSandboxState(trx, sandbox, 'destroyed'));
  }

  async pauseSandbox(sandbox: Parameters<Engine['pauseSandbox']>[0]) {
    return transact(this.database.db, (trx) => setSandboxState(trx, sandbox, 'paused'));
  }

  get #copies() {
    const at = (name: string) => path.join(this.dir, name);
    return {
      db: this.database.db,
      objects: fileObjectStore(at('objects')),
      tmp_dir: at('tmp'),
      folders: { sandboxes: at('sandboxes') },
      limits: { source: { max_bytes: 64 * 1024 * 1024, max_files: 10_000 } },
    };
  }

  get #images() {
    const at = (name: string) => path.join(this.dir, name);
    return {
      objects: fileObjectStore(at('objects')),
      folders: { images: at('images') },
      push_registries: ['127.0.0.1:1'],
    };
  }

  exportRelease(release: Release) {
    return exportRelease(this.#images, release);
  }

  pushRelease(release: Release, to: PushRequest, signal: AbortSignal) {
    return pushRelease(this.#images, release, to, signal);
  }

  snapshotSandbox(sandbox: Parameters<Engine['snapshotSandbox']>[0]) {
    return snapshotSandbox(this.#copies, sandbox);
  }

  fillSandbox(sandbox_id: string, from: Parameters<Engine['fillSandbox']>[1]) {
    return fillSandbox(this.#copies, sandbox_id, from);
  }

  discardSandbox(sandbox_id: string) {
    return discardSandbox(this.#copies, sandbox_id);
  }

  sandboxLogPath(sandbox_id: string): string {
    return path.join(this.dir, 'sandboxes', sandbox_id, 'commands.jsonl');
  }

  async exec(sandbox: { id: string }, request: ExecRequest): Promise<Machine> {
    const cwd = path.join(await this.workspaceDir(sandbox), request.cwd);
    const env = { PATH: '/usr/local/bin:/usr/bin:/bin', ...request.env };
    const child = spawn('sh', ['-c', request.command], { cwd, env, detached: true });
    child.stdout.on('data', (chunk) => request.on_output('stdout', chunk));
    child.stderr.on('data', (chunk) => request.on_output('stderr', chunk));
    const started = performance.now();
    let stopped = false;
    const exited = new Promise<MachineExit>((resolve) => {
      child.on('close', (exit_code, signal) =>
        resolve({
          reason: signal === null ? 'exited' : stopped ? 'killed' : 'timed_out',
          exit_code,
          signal,
          peak_memory_bytes: 0,
          peak_processes: 1,
          duration_ms: performance.now() - started,
        }),
      );
    });
    const kill = () => {
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
        process.kill(-child.pid, 'SIGKILL');
      return exited;
    };
    const timer = setTimeout(kill, request.timeout_ms);
    exited.then(() => clearTimeout(timer));
    const stop = () => {
      stopped = true;
      return kill();
    };
    const listening = async () => [];
    const usage = async () => ({ memory_bytes: 0, processes: 1 });
    return { id: 'mch_fake', pid: child.pid ?? 0, exited, stop, listening, usage };
  }
}

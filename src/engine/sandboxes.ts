/** Workspaces on this machine's disk, and commands run in them. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { Machine } from '../isolation/driver.ts';
import { purge } from '../source/remove.ts';
import { appendEvent } from '../store/event.ts';
import { getSandbox, setSandboxState } from '../store/sandbox.ts';
import { transact } from '../store/transact.ts';
import type { EngineContext } from './context.ts';
import type { ExecRequest } from './engine.ts';
import type { SandboxLogs } from './sandbox-logs.ts';

/** Between the request to end and the end by force. */
const STOP_GRACE_MS = 1000;
const EXEC_LIMITS = { processes: 512, log_bytes: 32 * 1024 * 1024 };

export function workspacePath(ctx: EngineContext, sandbox_id: string): string {
  return path.join(ctx.folders.sandboxes, sandbox_id, 'workspace');
}

export async function workspaceDir(ctx: EngineContext, sandbox: Sandbox): Promise<string> {
  if (sandbox.state === 'destroyed' || sandbox.state === 'error')
    throw new KilnError('SANDBOX_NOT_RUNNING', `The sandbox ${sandbox.name} is ${sandbox.state}.`);
  const dir = workspacePath(ctx, sandbox.id);
  await mkdir(dir, { recursive: true });
  return dir;
}

/** Commands at work, by sandbox; those that are about to start are among them. */
export class RunningCommands {
  readonly #of = new Map<string, Set<Promise<Machine>>>();

  /** Keeps a command until it has ended. */
  add(sandbox_id: string, starting: Promise<Machine>): void {
    const commands = this.#of.get(sandbox_id) ?? new Set();
    this.#of.set(sandbox_id, commands);
    commands.add(starting);
    const ended = () => {
      commands.delete(starting);
      if (commands.size === 0 && this.#of.get(sandbox_id) === commands) this.#of.delete(sandbox_id);
    };
    starting.then((machine) => machine.exited).then(ended, ended);
  }

  /** Ends them all, with whatever they started; resolves when nothing of them is left. */
  async stop(sandbox_id: string): Promise<void> {
    const commands = [...(this.#of.get(sandbox_id) ?? [])];
    await Promise.all(
      commands.map(async (starting) => {
        const machine = await starting.catch(() => null);
        await machine?.stop(STOP_GRACE_MS);
      }),
    );
  }
}

/** What exec, pause and destroy share. */
export interface Commands {
  logs: SandboxLogs;
  running: RunningCommands;
}

/** Resolves when the command has started; `Machine.exited` tells its end. */
export function exec(
  ctx: EngineContext,
  { logs, running }: Commands,
  sandbox: Sandbox,
  request: ExecRequest,
): Promise<Machine> {
  const starting = start(ctx, logs, sandbox, request);
  running.add(sandbox.id, starting);
  return starting;
}

/**
 * The row is read once the command is among those that run: whoever pauses or destroys the sandbox writes the row and then
 * stops them, so one of the two sees the other.
 */
async function start(
  ctx: EngineContext,
  logs: SandboxLogs,
  { id, tenant_id, name }: Sandbox,
  request: ExecRequest,
): Promise<Machine> {
  const sandbox = await getSandbox(ctx.db, tenant_id, id);
  if (sandbox?.state !== 'running')
    throw new KilnError(
      'SANDBOX_NOT_RUNNING',
      `The sandbox ${name} is ${sandbox?.state ?? 'gone'}; ${sandbox?.state === 'paused' ? 'resume it first' : 'make a new one'}.`,
    );
  const workspace_dir = await workspaceDir(ctx, sandbox);
  const log = logs.command(id, request.env);
  const starting = ctx.driver.start({
    id: ctx.newId('mch'),
    kind: 'exec',
    workspace_dir,
    cwd: request.cwd,
    command: request.command,
    env: request.env,
    network: ctx.network,
    limits: {
      time_ms: request.timeout_ms,
      memory_bytes: ctx.limits.build.memory_bytes,
      processes: EXEC_LIMITS.processes,
      disk_bytes: ctx.limits.build.disk_bytes,
      log_bytes: EXEC_LIMITS.log_bytes,
      on_log_limit: 'kill',
    },
    on_output: (stream, chunk) => {
      log.write(stream, chunk);
      request.on_output(stream, chunk);
    },
  });
  const ended = () => void log.end();
  starting.then((machine) => machine.exited).then(ended, ended);
  return starting;
}

/** What runs in it ends; the files stay. */
export async function pauseSandbox(
  ctx: EngineContext,
  { running }: Commands,
  sandbox: Sandbox,
): Promise<Sandbox> {
  const row = await transact(ctx.db, (trx) => setSandboxState(trx, sandbox, 'paused'));
  await running.stop(sandbox.id);
  return row;
}

/**
 * The row first: a folder without a living row is swept at the next start. Then what runs in it, and the folder when
 * nothing writes into it any more.
 */
export async function destroySandbox(
  ctx: EngineContext,
  { running }: Commands,
  sandbox: Sandbox,
): Promise<void> {
  if (sandbox.state !== 'destroyed')
    await transact(ctx.db, async (trx) => {
      await setSandboxState(trx, sandbox, 'destroyed');
      await appendEvent(trx, {
        id: ctx.newId('evt'),
        tenant_id: sandbox.tenant_id,
        type: 'sandbox.destroyed',
        data: {
          sandbox_id: sandbox.id,
          name: sandbox.name,
          workspace_id: sandbox.workspace_id,
          project_id: sandbox.project_id,
          external_workspace_id: sandbox.external_workspace_id,
          external_user_id: sandbox.external_user_id,
          external_project_id: sandbox.external_project_id,
        },
      });
    });
  await running.stop(sandbox.id);
  await purge(path.join(ctx.folders.sandboxes, sandbox.id));
}

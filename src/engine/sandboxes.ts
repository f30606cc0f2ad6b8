/** Workspaces on this machine's disk, and commands run in them. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { Machine } from '../isolation/driver.ts';
import { purge } from '../source/remove.ts';
import { appendEvent } from '../store/event.ts';
import { setSandboxState } from '../store/sandbox.ts';
import type { EngineContext } from './context.ts';
import type { ExecRequest } from './engine.ts';
import type { SandboxLogs } from './sandbox-logs.ts';

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

/** Resolves when the command has started; `Machine.exited` tells its end. */
export async function exec(
  ctx: EngineContext,
  logs: SandboxLogs,
  sandbox: Sandbox,
  request: ExecRequest,
): Promise<Machine> {
  if (sandbox.state !== 'running')
    throw new KilnError(
      'SANDBOX_NOT_RUNNING',
      `The sandbox ${sandbox.name} is ${sandbox.state}; resume it first.`,
    );
  const workspace_dir = await workspaceDir(ctx, sandbox);
  const log = logs.command(sandbox.id, request.env);
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

/** The row first: a folder without a living row is swept at the next start. */
export async function destroySandbox(ctx: EngineContext, sandbox: Sandbox): Promise<void> {
  if (sandbox.state !== 'destroyed')
    await ctx.db.transaction().execute(async (trx) => {
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
  await purge(path.join(ctx.folders.sandboxes, sandbox.id));
}

/** Commands in a sandbox, inside the isolation driver; ended when the caller hangs up. */
import { StringDecoder } from 'node:string_decoder';
import { KilnError } from '../domain/errors.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { Engine } from '../engine/engine.ts';
import { followInside, insideWorkspace } from '../source/paths.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import { type ExecBody, execSandbox, streamExec } from './contract/exec.ts';
import { checkEnv } from './env-input.ts';
import { gone } from './file.ts';
import { usable } from './find.ts';
import { openSandboxEnv } from './sandbox-env.ts';
import { eventStream, type Send } from './sse.ts';

const DEFAULT_TIMEOUT_S = 120;
/** Kept of each of stdout and stderr in an answer. */
const OUTPUT_BYTES = 8 * 1024 * 1024;
const STOP_GRACE_MS = 1000;
/** A line longer than this is sent in pieces. */
const LINE_CHARS = 64 * 1024;

type Machine = Awaited<ReturnType<Engine['exec']>>;
type MachineExit = Awaited<Machine['exited']>;
type OnOutput = (stream: 'stdout' | 'stderr', chunk: Buffer) => void;

interface Prepared {
  sandbox: Sandbox;
  cwd: string;
  env: Record<string, string>;
}

/** Everything that can be wrong with the request, before anything starts or an answer begins. */
async function prepare(call: AnyCall, sandbox_id: string, body: ExecBody): Promise<Prepared> {
  const sandbox = await usable(call, sandbox_id);
  const root = await call.deps.engine.workspaceDir(sandbox);
  const asked = body.cwd ?? body.dir ?? '/workspace';
  const cwd = await insideWorkspace(root, async (folders) => {
    const folder = followInside(folders, asked);
    folders.at(folder); // it is there, and a folder
    return folder;
  }).catch((error) => gone(asked, error));
  const own = checkEnv(body.env ?? {}, 'env');
  const env = { ...(await openSandboxEnv(call.deps, sandbox.id)), ...own };
  return { sandbox, cwd: cwd || '.', env };
}

async function start(call: AnyCall, of: Prepared, body: ExecBody, on_output: OnOutput): Promise<Machine> {
  return call.deps.engine.exec(of.sandbox, {
    command: body.command,
    cwd: of.cwd,
    env: of.env,
    timeout_ms: Math.ceil((body.timeout ?? DEFAULT_TIMEOUT_S) * 1000),
    on_output,
  });
}

/** The end of the machine, brought about when `signal` aborts. */
async function ended(machine: Machine, signal: AbortSignal): Promise<MachineExit> {
  const stop = () => void machine.stop(STOP_GRACE_MS).catch(() => {});
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    return await machine.exited;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** As a shell would say it: 124 for a timeout (timeout(1)), 137 for whatever was killed. */
function exitCode(exit: MachineExit): number {
  if (exit.reason === 'timed_out') return 124;
  return exit.exit_code ?? 137;
}

async function exec(call: AnyCall, sandbox_id: string, body: ExecBody): Promise<Reply> {
  const of = await prepare(call, sandbox_id, body);
  const kept = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const size_bytes = { stdout: 0, stderr: 0 };
  let truncated = false;
  const machine = await start(call, of, body, (stream, chunk) => {
    const room = OUTPUT_BYTES - size_bytes[stream];
    if (chunk.length > room) truncated = true;
    if (room <= 0) return;
    const part = Buffer.from(chunk.subarray(0, room));
    kept[stream].push(part);
    size_bytes[stream] += part.length;
  });
  const exit = await ended(machine, call.signal);
  if (call.signal.aborted) throw new KilnError('UNAVAILABLE', 'The caller hung up; the command was ended.');
  return reply({
    stdout: Buffer.concat(kept.stdout).toString('utf8'),
    stderr: Buffer.concat(kept.stderr).toString('utf8'),
    exit_code: exitCode(exit),
    duration_ms: Math.round(exit.duration_ms),
    reason: exit.reason,
    truncated,
  });
}

/** Turns chunks into whole lines, also across chunk and character borders. */
function lines(emit: (line: string) => void) {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  const drain = () => {
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      emit(rest.slice(0, end).replace(/\r$/, ''));
      rest = rest.slice(end + 1);
    }
    if (rest.length > LINE_CHARS) {
      emit(rest);
      rest = '';
    }
  };
  return {
    add(chunk: Buffer): void {
      rest += decoder.write(chunk);
      drain();
    },
    end(): void {
      rest += decoder.end();
      drain();
      if (rest !== '') emit(rest);
    },
  };
}

async function stream(
  call: AnyCall,
  of: Prepared,
  body: ExecBody,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  // Frames queue up behind a slow reader; the driver's own limit on output bounds them.
  let sending = Promise.resolve();
  const emitter = (name: 'stdout' | 'stderr') =>
    lines((line) => {
      sending = sending.then(() => send({ event: name, data: { type: name, stream: name, line } }));
    });
  const out = { stdout: emitter('stdout'), stderr: emitter('stderr') };
  const machine = await start(call, of, body, (name, chunk) => out[name].add(chunk));
  const exit = await ended(machine, signal);
  out.stdout.end();
  out.stderr.end();
  await sending;
  const { reason, duration_ms } = exit;
  await send({
    event: 'exit',
    data: { type: 'exit', exit_code: exitCode(exit), reason, duration_ms: Math.round(duration_ms) },
  });
}

export const execHandlers: Mounted[] = [
  handle(execSandbox, (call) => exec(call, call.params.id, call.body)),
  handle(streamExec, async (call) => {
    const of = await prepare(call, call.params.id, call.body);
    return eventStream(call, (send, signal) => stream(call, of, call.body, send, signal));
  }),
];

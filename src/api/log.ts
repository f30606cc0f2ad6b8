/** Logs on the wire: `log_line` frames and JSON lines, of builds, instances, and a whole deployment. */
import type { Instance } from '../domain/instance.ts';
import { isFinished, type Operation } from '../domain/operation.ts';
import { instanceById, unstoppedInstances } from '../store/instance.ts';
import { followLog, type LogLine, readLog } from '../store/logs.ts';
import { operationOfVersion, publishOfVersion, unfinishedOf } from '../store/operation.ts';
import { newestVersionId, versionById } from '../store/version.ts';
import { type AnyCall, data, handle, type Mounted } from './call.ts';
import { getDeploymentLogs } from './contract/deployment.ts';
import { findDeployment } from './find.ts';
import { eventStream, type Send, wantsStream } from './sse.ts';

type Source = 'build' | 'instance';

/** Streams of one answer; a deployment may have more instances. */
const FOLLOWED = 20;

function present(line: LogLine, source: Source, source_id: string) {
  return { ts: line.t, stream: line.s, line: line.l, source, source_id };
}
export type ShownLine = ReturnType<typeof present>;

export async function readLines(
  path: string,
  source: Source,
  source_id: string,
  tail: number,
): Promise<ShownLine[]> {
  return (await readLog(path, { tail })).lines.map((line) => present(line, source, source_id));
}

export function textOf(lines: ShownLine[]): string {
  return lines.map((line) => `${line.line}\n`).join('');
}

const frame = (line: ShownLine) => ({ event: 'log_line', data: { type: 'log_line', ...line } });

/**
 * The log of a publish, from its first line until its operation is finished (the health stage writes there as well),
 * then `done` with the outcome from the operation's row.
 */
export async function followBuild(
  call: AnyCall,
  build_id: string,
  version_id: string,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  const { engine, database } = call.deps;
  const publish = () => publishOfVersion(database.db, version_id);
  let finished: Operation | undefined;
  const lines = followLog(engine.buildLogPath(build_id), {
    signal,
    finished: async () => {
      const operation = await publish();
      if (!operation || isFinished(operation.state)) finished = operation;
      return !operation || finished !== undefined;
    },
  });
  for await (const line of lines) await send(frame(present(line, 'build', build_id)));
  if (signal.aborted) return;
  const { failure, state: version_state } = await versionById(database.db, version_id);
  const state = finished?.state === 'succeeded' ? 'succeeded' : 'failed';
  await send({
    event: 'done',
    data: {
      type: 'done',
      result: { state, version_id, version_state, failure, promoted: finished?.promoted ?? false },
    },
  });
}

/** An instance's log from its last `tail` lines on, until the instance has stopped or the reader is gone. */
export async function followInstance(
  call: AnyCall,
  instance: Instance,
  tail: number,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  const path = call.deps.engine.instanceLogPath(instance.id);
  const { lines, next } = await readLog(path, { tail });
  for (const line of lines) await send(frame(present(line, 'instance', instance.id)));
  const finished = async () => (await instanceById(call.deps.database.db, instance.id))?.stopped_at !== null;
  for await (const line of followLog(path, { after: next, signal, finished }))
    await send(frame(present(line, 'instance', instance.id)));
}

async function liveInstances(call: AnyCall, deployment_id: string): Promise<Instance[]> {
  const rows = await unstoppedInstances(call.deps.database.db, { deployment_id });
  return rows.filter((row) => row.role === 'live').slice(-FOLLOWED);
}

/** The publish under way to its end; without one the live instances, for ever; a static deployment's last build. */
async function followDeployment(
  call: AnyCall,
  deployment_id: string,
  o: { tail: number; follow: boolean },
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  const { db } = call.deps.database;
  const running = (await unfinishedOf(db, deployment_id)).find((operation) => operation.kind === 'publish');
  const version_id = running?.version_id ?? (await newestVersionId(db, deployment_id));
  if (version_id === null)
    return send({ event: 'done', data: { type: 'done', result: { state: 'succeeded' } } });
  const instances = await liveInstances(call, deployment_id);
  if (running || instances.length === 0) {
    const { build_id } = await versionById(db, version_id);
    return followBuild(call, build_id, version_id, send, signal);
  }
  if (o.follow) {
    await Promise.all(instances.map((instance) => followInstance(call, instance, o.tail, send, signal)));
  } else {
    for (const line of await instanceLines(call, instances, o.tail)) await send(frame(line));
  }
  const last = await operationOfVersion(db, version_id);
  const state = last?.state === 'failed' ? 'failed' : 'succeeded';
  await send({ event: 'done', data: { type: 'done', result: { state } } });
}

async function instanceLines(call: AnyCall, instances: Instance[], tail: number): Promise<ShownLine[]> {
  const each = await Promise.all(
    instances.map((i) => readLines(call.deps.engine.instanceLogPath(i.id), 'instance', i.id, tail)),
  );
  return each
    .flat()
    .sort((a, b) => (a.ts < b.ts ? -1 : a.ts > b.ts ? 1 : 0))
    .slice(-tail);
}

export const logHandlers: Mounted[] = [
  handle(getDeploymentLogs, async (call) => {
    const { id } = await findDeployment(call, call.params.id);
    const tail = call.query.lines ?? 100;
    if (wantsStream(call.request))
      return eventStream(call, (send, signal) =>
        followDeployment(call, id, { tail, follow: call.query.follow !== 'false' }, send, signal),
      );
    const { engine, database } = call.deps;
    const version_id = await newestVersionId(database.db, id);
    const build_id = version_id === null ? null : (await versionById(database.db, version_id)).build_id;
    const built =
      build_id === null ? [] : await readLines(engine.buildLogPath(build_id), 'build', build_id, tail);
    const ran = await instanceLines(call, await liveInstances(call, id), tail);
    const lines = [...built, ...ran].slice(-tail);
    return data({ deployment_id: id, lines, logs: textOf(lines) });
  }),
];

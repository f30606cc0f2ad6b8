/** The port that a plan names, where the instances share the host's network and somebody else listens there. */
import { type HeldPort, heldPortWarning, holderInWords } from '../domain/held-port.ts';
import { portHolder } from '../store/instance.ts';
import type { Run } from './run.ts';

/** Said before the build, in its log only: the next version of an app that reads PORT meets this every time, and starts. */
export async function noteHeldPort(run: Run, port: number | null): Promise<void> {
  const holder = port === null ? undefined : await portHolder(run.db, port);
  if (port === null || holder === undefined) return;
  run.log.note(heldPortWarning({ port, by: holderInWords(holder, asker(run)) }));
}

/** Null when every instance got the port, or the plan names none. */
export async function heldPort(
  run: Run,
  port: number | null,
  replicas: readonly { port: number }[],
): Promise<HeldPort | null> {
  if (port === null || replicas.every((one) => one.port === port)) return null;
  return { port, by: holderInWords(await portHolder(run.db, port), asker(run)) };
}

const asker = ({ version }: Run) => ({ tenant_id: version.tenant_id, version_id: version.id });

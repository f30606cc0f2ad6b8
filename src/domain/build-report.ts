/** What a build used and whom it talked to, stored with it. */

export interface ContactedHost {
  host: string;
  port: number;
  connections: number;
  /** Null when it was let through; else why not. */
  refused: string | null;
  bytes_in: number;
  bytes_out: number;
}

export interface BuildReport {
  peak_memory_bytes: number;
  /** Null when the isolation driver could not tell, here and below. */
  cpu_ms: number | null;
  /** How much the build's own disk grew. */
  disk_bytes: number | null;
  /** Those with the most traffic first. */
  hosts: ContactedHost[];
  /** Through the build's proxy, from and to all hosts. */
  bytes_in: number;
  bytes_out: number;
}

/** What one machine of the build says at its end. */
export interface MachineReport {
  peak_memory_bytes: number;
  cpu_ms?: number | null;
  disk_bytes?: number | null;
  hosts?: readonly ContactedHost[];
}

const MOST_HOSTS = 200;

/** The machines of one build, which ran one after the other. */
export function mergeReports(machines: readonly MachineReport[]): BuildReport {
  const hosts = new Map<string, ContactedHost>();
  for (const one of machines.flatMap((machine) => machine.hosts ?? [])) {
    const key = `${one.host} ${one.port} ${one.refused}`;
    const known = hosts.get(key);
    if (!known) hosts.set(key, { ...one });
    else
      hosts.set(key, {
        ...known,
        connections: known.connections + one.connections,
        bytes_in: known.bytes_in + one.bytes_in,
        bytes_out: known.bytes_out + one.bytes_out,
      });
  }
  const all = [...hosts.values()].sort(
    (a, b) => b.bytes_in + b.bytes_out - a.bytes_in - a.bytes_out || a.host.localeCompare(b.host),
  );
  return {
    peak_memory_bytes: Math.max(0, ...machines.map((machine) => machine.peak_memory_bytes)),
    cpu_ms: sum(machines.map((machine) => machine.cpu_ms)),
    disk_bytes: sum(machines.map((machine) => machine.disk_bytes)),
    hosts: all.slice(0, MOST_HOSTS),
    bytes_in: all.reduce((total, one) => total + one.bytes_in, 0),
    bytes_out: all.reduce((total, one) => total + one.bytes_out, 0),
  };
}

/** For the build's log. */
export function describeReport(report: BuildReport): string {
  const mb = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
  const reached = report.hosts.filter((one) => one.refused === null).length;
  const refused = report.hosts.length - reached;
  return [
    `used at most ${mb(report.peak_memory_bytes)} of memory`,
    ...(report.cpu_ms === null ? [] : [`${(report.cpu_ms / 1000).toFixed(1)} s of processor time`]),
    ...(report.disk_bytes === null ? [] : [`${mb(report.disk_bytes)} of disk`]),
    ...(reached === 0 ? [] : [`${mb(report.bytes_in)} from ${reached} host${reached === 1 ? '' : 's'}`]),
    ...(refused === 0 ? [] : [`${refused} host${refused === 1 ? '' : 's'} refused`]),
  ].join(', ');
}

/** Null when no machine knows. */
function sum(values: readonly (number | null | undefined)[]): number | null {
  const known = values.filter((value) => typeof value === 'number');
  return known.length === 0 ? null : known.reduce((total, value) => total + value, 0);
}

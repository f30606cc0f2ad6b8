import type { ListeningPort } from '../../../domain/failure.ts';
import { readAddress } from '../../sockets.ts';

/**
 * What the guest agent says, one JSON line each. A guest may be in the hands of the code it runs, so every line is
 * checked, and what is not one of these is dropped:
 *
 *   booted → (host: go) → started → beat … → [limit] → over → [output] → done
 *   cache, ports: in between; broken: nothing more will come.
 */
export type GuestEvent =
  | { event: 'booted' | 'started' | 'done' }
  | { event: 'broken'; step: string }
  | ({ event: 'beat' } & Usage)
  | { event: 'ports'; rows: string[] }
  | { event: 'cache'; state: 'kept' | 'emptied' | 'broken'; used_bytes: number }
  | { event: 'limit'; reason: LimitReason }
  | ({
      event: 'over';
      reason: LimitReason | 'exited';
      code: number;
      stdout_bytes: number;
      stderr_bytes: number;
    } & Usage)
  | { event: 'output'; bytes: number; failed: number };

export interface Usage {
  memory_bytes: number;
  processes: number;
  cpu_us: number;
  disk_bytes: number;
}

export type LimitReason = 'out_of_memory' | 'too_many_processes' | 'out_of_disk';

const MAX_LINE_BYTES = 1 << 20;
const USAGE = ['memory_bytes', 'processes', 'cpu_us', 'disk_bytes'];
const NUMBERS: Record<string, readonly string[]> = {
  beat: USAGE,
  over: ['code', 'stdout_bytes', 'stderr_bytes', ...USAGE],
  output: ['bytes', 'failed'],
};
const LIMIT_REASONS = ['out_of_memory', 'too_many_processes', 'out_of_disk'];

/** Splits a channel into events. What is no event is passed over; a line without end is given up. */
export function makeEventReader(on_event: (event: GuestEvent) => void): (chunk: Buffer) => void {
  let rest = '';
  return (chunk) => {
    const lines = (rest + chunk.toString('latin1')).split('\n');
    rest = lines.pop()!;
    if (rest.length > MAX_LINE_BYTES) rest = '';
    for (const line of lines) {
      const event = parseEvent(line);
      if (event !== null) on_event(event);
    }
  };
}

export function parseEvent(line: string): GuestEvent | null {
  let data: Record<string, unknown>;
  try {
    data = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null;
  }
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return null;
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const event = String(data.event);
  if (NUMBERS[event]?.some((name) => !isCount(data[name]))) return null;
  switch (event) {
    case 'booted':
    case 'started':
    case 'done':
      return { event };
    case 'broken':
      return { event, step: String(data.step).slice(0, 200) };
    case 'beat':
    case 'output':
      return data as unknown as GuestEvent;
    case 'over':
      return [...LIMIT_REASONS, 'exited'].includes(String(data.reason))
        ? (data as unknown as GuestEvent)
        : null;
    case 'limit':
      return LIMIT_REASONS.includes(String(data.reason)) ? (data as unknown as GuestEvent) : null;
    case 'ports':
      return Array.isArray(data.rows) ? { event, rows: data.rows.map(String) } : null;
    case 'cache': {
      const state = ['kept', 'emptied', 'broken'].find((one) => one === data.state);
      const used_bytes = isCount(data.used_bytes) ? (data.used_bytes as number) : 0;
      return state ? { event, state: state as 'kept' | 'emptied' | 'broken', used_bytes } : null;
    }
    default:
      return null;
  }
}

/** `0100007F:0BB8` as the kernel prints it; the guest's byte order is ours. */
export function readPorts(rows: readonly string[]): ListeningPort[] {
  const found = new Map<string, ListeningPort>();
  for (const row of rows) {
    const match = /^([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})$/.exec(row);
    if (match === null) continue;
    const port = { address: readAddress(match[1]!), port: Number.parseInt(match[2]!, 16) };
    found.set(`${port.address} ${port.port}`, port);
  }
  return [...found.values()].sort((a, b) => a.port - b.port || a.address.localeCompare(b.address));
}

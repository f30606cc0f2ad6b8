/** What the log says while an app is not healthy yet: each answer once, so that nobody waits blindly for the limit. */
import type { GateProgress } from './gate.ts';

/** Refused and failing answers are usual in the first seconds of a start, and say nothing. */
const USUAL_START_MS = 3000;
/** An app whose answers change all the time is told of only so often. */
const MAX_NOTES = 10;

/** A listener for the gate's progress. */
export function tellWaiting(path: string, note: (line: string) => void): (progress: GateProgress) => void {
  const told = new Set<string>();
  return ({ phase, elapsed_ms, last }) => {
    if (phase !== 'starting' || elapsed_ms < USUAL_START_MS || last === null || told.size >= MAX_NOTES)
      return;
    const { status, error, location } = last;
    if (status !== null && status >= 200 && status < 300) return;
    const line =
      status !== null
        ? `GET ${path} answers ${status}${location === null ? '' : ` (to ${location})`}, and a 2xx is needed`
        : error === 'refused'
          ? 'nothing listens on its port yet'
          : `GET ${path} is not answered (${error})`;
    if (told.has(line)) return;
    told.add(line);
    note(`health: after ${Math.round(elapsed_ms / 1000)} s, ${line}`);
  };
}

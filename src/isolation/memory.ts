import { readProc } from './marks.ts';

/**
 * Resident memory of some processes together, in bytes.
 *
 * Shared pages make this hard: adding up RSS counts the same library once per process, and proportional shares
 * (PSS) are exact but cost a page-table walk, several milliseconds for a large process. So: private pages plus the
 * largest shared part, which is cheap, as long as even the plain sum stays under `exact_above`; PSS beyond it.
 */
export function residentBytes(pids: readonly number[], exact_above: number): number {
  let anonymous = 0;
  let largest_file = 0;
  let largest_shared = 0;
  let sum = 0;
  for (const pid of pids) {
    const status = readProc(`/proc/${pid}/status`);
    if (status === null) continue;
    const private_bytes = kilobytes(status, 'RssAnon');
    const file_bytes = kilobytes(status, 'RssFile');
    const shared_bytes = kilobytes(status, 'RssShmem');
    anonymous += private_bytes;
    largest_file = Math.max(largest_file, file_bytes);
    largest_shared = Math.max(largest_shared, shared_bytes);
    sum += private_bytes + file_bytes + shared_bytes;
  }
  const estimate = anonymous + largest_file + largest_shared;
  if (sum <= exact_above) return estimate;
  return proportionalBytes(pids) ?? estimate;
}

function proportionalBytes(pids: readonly number[]): number | null {
  let sum = 0;
  for (const pid of pids) {
    const rollup = readProc(`/proc/${pid}/smaps_rollup`);
    if (rollup !== null) sum += kilobytes(rollup, 'Pss');
  }
  return sum === 0 ? null : sum;
}

function kilobytes(text: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text);
  return match === null ? 0 : Number(match[1]) * 1024;
}

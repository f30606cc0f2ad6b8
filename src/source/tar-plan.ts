/** What is in an archive, in which order, and how the work is shared out. */
import { isBefore } from './listing.ts';
import { BLOCK, paddedSize } from './tar-format.ts';
import { type Share, SLAB_BYTES, type TarTask } from './tar-writer.ts';
import { KIND, ROW } from './tree.ts';

/** Headers and a pax header; most entries take less. */
const MOST_HEADER_BYTES = 4 * BLOCK;

/** `paths` and `extra` must be sorted by bytes. Where both have a name, the extra one is meant. */
export function orderEntries({ prefix, paths, extra }: Omit<TarTask, 'entries'>): Int32Array {
  const entries = new Int32Array(paths.length + extra.length);
  let length = 0;
  let next = 0;
  for (let i = 0; i < paths.length; i++) {
    const name = prefix + paths[i];
    while (next < extra.length && isBefore(extra[next]!.path, name)) entries[length++] = -1 - next++;
    if (extra[next]?.path !== name) entries[length++] = i;
  }
  while (next < extra.length) entries[length++] = -1 - next++;
  return entries.slice(0, length);
}

/**
 * Shares that fill a slab each, as far as the stat rows say; a larger file is a share of its own. They depend on the tree
 * alone, not on how many threads there are: what is made of each is the same everywhere.
 */
export function shareOut({ entries, extra, rows }: TarTask): Share[] {
  const shares: Share[] = [];
  let from = 0;
  let room = SLAB_BYTES;
  for (let n = 0; n < entries.length; n++) {
    const entry = entries[n]!;
    const is_file = entry >= 0 && rows[entry * ROW.width + ROW.kind] === KIND.file;
    const size =
      entry < 0 ? extra[-1 - entry]!.content.length : is_file ? rows[entry * ROW.width + ROW.size]! : 0;
    const bytes = MOST_HEADER_BYTES + paddedSize(size);
    if (bytes > room && n > from) {
      shares.push({ from, to: n });
      from = n;
      room = SLAB_BYTES;
    }
    room -= bytes;
  }
  shares.push({ from, to: entries.length });
  return shares;
}

/** What a look at a tree found: names and stat rows, in the order of a canonical tar. */
import { KIND, ROW, TreeChanged } from './tree.ts';

export interface Listing {
  /** Relative to the root, sorted by bytes. */
  paths: string[];
  /** A stat row each; see ROW. */
  rows: Float64Array;
}

const SURROGATE = /[\ud800-\udfff]/;

/** UTF-16 order is the order of the UTF-8 bytes, except where surrogates take part. */
export function isBefore(a: string, b: string): boolean {
  return SURROGATE.test(a) || SURROGATE.test(b) ? Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0 : a < b;
}

/** Sorts paths by their bytes, in place. */
export function sortByBytes(paths: string[]): string[] {
  return paths.some((path) => SURROGATE.test(path))
    ? paths.sort((a, b) => (isBefore(a, b) ? -1 : 1))
    : paths.sort();
}

/**
 * Drops what has vanished since the walk.
 * @throws TreeChanged when a folder has become something else or the other way round
 */
export function settleListing({ paths, rows }: Listing, folders: Set<string>): Listing {
  const kept: number[] = [];
  for (let i = 0; i < paths.length; i++) {
    const kind = rows[i * ROW.width + ROW.kind];
    if (kind === KIND.gone || kind === KIND.other) continue;
    if ((kind === KIND.dir) !== folders.has(paths[i]!)) throw new TreeChanged(paths[i]!);
    kept.push(i);
  }
  return select({ paths, rows }, kept);
}

/** What was still there when it was read. */
export function withoutGone(listing: Listing): Listing {
  const is_kept = (i: number) => listing.rows[i * ROW.width + ROW.kind] !== KIND.gone;
  return select(listing, [...listing.paths.keys()].filter(is_kept));
}

function select(listing: Listing, kept: number[]): Listing {
  if (kept.length === listing.paths.length) return listing;
  const rows = new Float64Array(kept.length * ROW.width);
  kept.forEach((i, n) => {
    rows.set(rowOf(listing, i), n * ROW.width);
  });
  return { paths: kept.map((i) => listing.paths[i]!), rows };
}

export function rowOf({ rows }: Listing, i: number): Float64Array {
  return rows.subarray(i * ROW.width, (i + 1) * ROW.width);
}

/** One sorted listing of several with different paths. */
export function mergeListings(parts: Listing[]): Listing {
  if (parts.length === 1) return parts[0]!;
  const length = parts.reduce((sum, part) => sum + part.paths.length, 0);
  const paths: string[] = [];
  const rows = new Float64Array(length * ROW.width);
  const next = parts.map(() => 0);
  for (let n = 0; n < length; n++) {
    let first = -1;
    for (let p = 0; p < parts.length; p++) {
      if (next[p] === parts[p]!.paths.length) continue;
      if (first < 0 || isBefore(parts[p]!.paths[next[p]!]!, parts[first]!.paths[next[first]!]!)) first = p;
    }
    const i = next[first]!++;
    paths.push(parts[first]!.paths[i]!);
    rows.set(rowOf(parts[first]!, i), n * ROW.width);
  }
  return { paths, rows };
}

/** Sum of the contents of the files. */
export function sumOfFiles(rows: Float64Array): number {
  let total = 0;
  for (let at = 0; at < rows.length; at += ROW.width) {
    if (rows[at + ROW.kind] === KIND.file) total += rows[at + ROW.size]!;
  }
  return total;
}

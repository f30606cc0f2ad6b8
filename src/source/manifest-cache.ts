import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import type { Listing } from './listing.ts';
import { RACY_MS } from './snapshot-cache.ts';
import { ROW } from './tree.ts';

const FORMAT = 1;
const Stored = z.object({
  format: z.literal(FORMAT),
  files: z.array(
    z.tuple([z.string(), z.array(z.number()).length(ROW.width), z.string().regex(/^[0-9a-f]{64}$/)]),
  ),
});

/** Digest and stat row of each file of the last manifest, by path. Missing, broken or foreign: empty. */
export async function readHashCache(file: string): Promise<Map<string, { row: number[]; sha256: string }>> {
  try {
    const { files } = Stored.parse(JSON.parse(await readFile(file, 'utf8')));
    return new Map(files.map(([path, row, sha256]) => [path, { row, sha256 }]));
  } catch {
    return new Map();
  }
}

/** Files written shortly before the look are not remembered: they could change again without showing it. Never fails. */
export async function writeHashCache(
  file: string,
  { paths, rows }: Listing,
  digests: Map<number, string>,
  looked_at_ms: number,
): Promise<void> {
  const files: z.infer<typeof Stored>['files'] = [];
  for (const [i, sha256] of digests) {
    const row = Array.from(rows.subarray(i * ROW.width, (i + 1) * ROW.width));
    if (Math.max(row[ROW.mtime_ms]!, row[ROW.ctime_ms]!) <= looked_at_ms - RACY_MS)
      files.push([paths[i]!, row, sha256]);
  }
  const temporary = `${file}.${process.pid}.${process.hrtime.bigint()}.tmp`;
  try {
    await writeFile(temporary, JSON.stringify({ format: FORMAT, files }), { flag: 'wx', mode: 0o600 });
    await rename(temporary, file);
  } catch {
    await rm(temporary, { force: true }).catch(() => {});
  }
}

/** What this install is made of, and whether it is well: for `kiln doctor`. */
import { readdir, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import type { DriverReport } from '../isolation/choose.ts';
import { listObjects } from '../store/object.ts';
import { ping } from '../store/tenant.ts';
import type { EngineContext } from './context.ts';

export interface DoctorReport {
  ok: boolean;
  engine_id: string;
  node: string;
  platform: string;
  data_dir: string;
  database: { kind: 'pglite' | 'postgres'; ok: boolean; detail: string };
  /** What each job is done by; the list has every driver that was tried, and why it does not work. */
  isolation: {
    builds: string;
    host: string;
    images: string | null;
    dockerfiles: string | null;
    drivers: DriverReport[];
  };
  base: string;
  disk: { kind: string; bytes: number; files: number }[];
  disk_free_bytes: number;
}

/** Folders of more entries than this are counted up to it: a doctor must answer within seconds. */
const MAX_FILES = 500_000;

export async function examine(
  ctx: EngineContext,
  drivers: DoctorReport['isolation']['drivers'],
): Promise<DoctorReport> {
  const database = await ping(ctx.db).then(
    () => ({ kind: ctx.database.kind, ok: true, detail: 'answers' }),
    (error) => ({ kind: ctx.database.kind, ok: false, detail: String(error) }),
  );
  const by_kind = new Map<string, { bytes: number; files: number }>();
  // The rest is told without a database too: that is when a doctor is asked.
  for (const object of database.ok ? await listObjects(ctx.db).catch(() => []) : []) {
    const sum = by_kind.get(object.kind) ?? { bytes: 0, files: 0 };
    by_kind.set(object.kind, { bytes: sum.bytes + object.size_bytes, files: sum.files + 1 });
  }
  const disk = [...by_kind].map(([kind, sum]) => ({ kind: `objects: ${kind}`, ...sum }));
  for (const kind of [
    'database',
    'sandboxes',
    'work',
    'instances',
    'machines',
    'images',
    'builder_images',
    'base_images',
    'instance_machines',
    'build_caches',
    'build_logs',
    'instance_logs',
    'caches',
    'tmp',
  ] as const)
    disk.push({ kind, ...(await measure(ctx.folders[kind])) });
  const space = await statfs(ctx.folders.data);
  return {
    ok: database.ok && drivers.some((driver) => driver.ok),
    engine_id: ctx.id,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    data_dir: ctx.folders.data,
    database,
    isolation: {
      builds: ctx.builder.name,
      host: ctx.driver.name,
      images: ctx.runtime?.name ?? null,
      dockerfiles: ctx.image_builder?.name ?? null,
      drivers,
    },
    base: ctx.builder_base,
    disk,
    disk_free_bytes: space.bavail * space.bsize,
  };
}

async function measure(root: string): Promise<{ bytes: number; files: number }> {
  const sum = { bytes: 0, files: 0 };
  const open = [root];
  for (let dir = open.pop(); dir !== undefined && sum.files < MAX_FILES; dir = open.pop())
    for (const entry of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
      const full = path.join(dir, entry.name);
      if (entry.isDirectory()) open.push(full);
      else {
        sum.files++;
        sum.bytes += await stat(full).then(
          (s) => s.size,
          () => 0,
        );
      }
    }
  return sum;
}

/** Looks at a stopped engine's data folder and names everything that must not be there, or must and is not. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { UPLOAD_PREFIX } from '../../src/domain/sandbox.ts';
import { dataKey } from '../../src/isolation/sweep.ts';
import { zstdDecoded } from '../../src/source/zstd.ts';
import { type Database, openDatabase } from '../../src/store/db.ts';
import { fileObjectStore } from '../../src/store/objects/files.ts';
import type { ObjectStore } from '../../src/store/objects/port.ts';

export async function walk(data_dir: string, url?: string): Promise<string[]> {
  const database = await openDatabase(url ? { url } : { dir: path.join(data_dir, 'database') });
  try {
    const objects = fileObjectStore(path.join(data_dir, 'objects'));
    return [
      ...(await rows(database)),
      ...(await artifacts(database, objects)),
      ...folders(data_dir),
      ...processes(data_dir),
    ];
  } finally {
    await database.close();
  }
}

/** I2, I7, I8 as the tables show them. */
async function rows({ db }: Database): Promise<string[]> {
  const wrong: string[] = [];
  const versions = await db.selectFrom('versions').selectAll().execute();
  const by_id = new Map(versions.map((version) => [version.id, version]));
  for (const { id, state } of versions)
    if (state === 'created' || state === 'building') wrong.push(`version ${id} is ${state} for ever`);
  for (const { id, finished_at } of await db.selectFrom('operations').selectAll().execute())
    if (finished_at === null) wrong.push(`operation ${id} is unfinished`);
  for (const { id, active_version_id } of await db.selectFrom('deployments').selectAll().execute()) {
    if (active_version_id === null) continue;
    const active = by_id.get(active_version_id);
    if (!active || !['ready', 'archived'].includes(active.state))
      wrong.push(`deployment ${id} points at a version that is ${active?.state}`);
    else if (active.release_id === null) wrong.push(`deployment ${id} points at a version without a release`);
    else if (active.kind === 'dynamic' && active.health_passed_at === null)
      wrong.push(`deployment ${id} points at an unproved version`);
  }
  for (const { id, stopped_at, role } of await db.selectFrom('instances').selectAll().execute())
    if (stopped_at === null && role !== 'live') wrong.push(`instance ${id} is left over as ${role}`);
  return wrong;
}

/** Every artifact and snapshot that a row names is stored, and is what its name says. */
async function artifacts({ db }: Database, objects: ObjectStore): Promise<string[]> {
  const wrong: string[] = [];
  const releases = await db.selectFrom('releases').selectAll().where('collected_at', 'is', null).execute();
  const sources = await db
    .selectFrom('versions')
    .select(['source_key', 'source_sha256'])
    .distinct()
    .execute();
  const named = [
    ...releases.map((release) => ({ key: release.object_key, sha256: release.sha256 })),
    ...sources.map((version) => ({ key: version.source_key, sha256: version.source_sha256 })),
  ];
  for (const { key, sha256 } of named) {
    if ((await objects.head(key)) === null) {
      wrong.push(`object ${key} is missing`);
      continue;
    }
    const stored = await objects.get(key);
    const hash = createHash('sha256');
    for await (const chunk of key.endsWith('.zst') ? zstdDecoded(stored) : stored)
      hash.update(chunk as Buffer);
    if (hash.digest('hex') !== sha256) wrong.push(`object ${key} is not what its name says`);
  }
  const booked = new Set((await db.selectFrom('objects').select('key').execute()).map((row) => row.key));
  for await (const { key } of objects.list('releases/'))
    if (!booked.has(key) && !releases.some((r) => r.object_key === key))
      wrong.push(`object ${key} is in no book`);
  return wrong;
}

/** Half uploads, work folders and instance folders that nobody owns. */
function folders(data_dir: string): string[] {
  const wrong: string[] = [];
  for (const name of ['work', 'tmp', 'machines'])
    for (const left of readdirSync(path.join(data_dir, name))) wrong.push(`${name}/${left} is left over`);
  const half = path.join(data_dir, 'objects', '.tmp');
  for (const left of existsSync(half) ? readdirSync(half) : [])
    wrong.push(`objects/.tmp/${left} is half an upload`);
  const sandboxes = path.join(data_dir, 'sandboxes');
  for (const id of readdirSync(sandboxes))
    for (const left of readdirSync(path.join(sandboxes, id)))
      if (left.startsWith(UPLOAD_PREFIX)) wrong.push(`sandboxes/${id}/${left} is half an upload`);
  return wrong;
}

/** Processes that still run something of this data folder. */
function processes(data_dir: string): string[] {
  const wrong: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8');
      if (Number(pid) !== process.pid && environment.includes(`KILN_DATA=${dataKey(data_dir)}`))
        wrong.push(`process ${pid} still runs: ${command}`);
    } catch {
      // Gone meanwhile, or not ours.
    }
  }
  return wrong;
}

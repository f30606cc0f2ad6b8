import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { aDeployment, aVersion, newId } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import { type Database, openDatabase } from '../store/db.ts';
import { deploymentById, switchActiveVersion, takeSeq } from '../store/deployment.ts';
import { insertInstance } from '../store/instance.ts';
import { recordObject, type StoredObject } from '../store/object.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { insertRelease, releaseById } from '../store/release.ts';
import { insertSandbox } from '../store/sandbox.ts';
import { deleteSnapshot, insertSnapshot } from '../store/snapshot.ts';
import { recordRelease, setVersionState, versionById } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { makeFolders } from './folders.ts';
import { collect, judge } from './retention.ts';

const DAY_MS = 24 * 3600 * 1000;

describe('what retention may take', () => {
  const now = new Date('2026-06-01T00:00:00Z');
  const days_ago = (days: number) => new Date(now.getTime() - days * DAY_MS);
  const object = (age_days: number): StoredObject => ({
    key: 'k',
    kind: 'release',
    size_bytes: 1,
    created_at: days_ago(age_days),
    last_used_at: days_ago(age_days),
  });
  const reference = (
    why: 'active' | 'unfinished' | 'warm' | 'among the newest' | 'older' | 'a snapshot',
    age_days: number,
  ) => ({ why, what: 'version 3 of shop', since: days_ago(age_days) });

  for (const why of ['active', 'unfinished', 'warm', 'among the newest', 'a snapshot'] as const)
    test(`never what is ${why}, however old`, () => {
      assert.equal(judge(object(999), [reference('older', 999), reference(why, 999)], now, 30).keep, true);
    });
  test('old versions keep theirs until their time is over', () => {
    assert.equal(judge(object(40), [reference('older', 29)], now, 30).keep, true);
    assert.deepEqual(judge(object(40), [reference('older', 31)], now, 30), {
      keep: false,
      reason: 'only versions older than 30 days refer to it',
    });
  });
  test('what nothing refers to goes after the same time, and never while it is fresh', () => {
    assert.equal(judge(object(31), [], now, 30).keep, false);
    assert.equal(judge(object(29), [], now, 30).keep, true);
    assert.equal(judge(object(0), [reference('older', 99)], now, 0).keep, true);
  });
});

describe('collecting', () => {
  let database: Database;
  let objects: ObjectStore;
  let ctx: EngineContext;
  let deployment: Deployment;
  before(async () => {
    const folders = await makeFolders(await tempDir('gc'));
    database = await openDatabase({ dir: 'memory://' });
    objects = fileObjectStore(folders.objects);
    const later = new Date(Date.now() + 60 * DAY_MS);
    const some = { folders, objects, database, db: database.db, retention: { days: 30, keep_versions: 2 } };
    ctx = {
      ...some,
      builder: {},
      image_builder: null,
      cache_total_bytes: 1e9,
      now: () => later,
    } as unknown as EngineContext;
    deployment = await aDeployment(database.db);
  });
  after(() => database.close());

  /** A ready version with a release of its own, stored and in the books. */
  async function published(n: number): Promise<{ key: string; release_id: string }> {
    const key = `releases/${String(n).padStart(64, '0')}.tar`;
    await objects.put(key, Readable.from([Buffer.from(`release ${n}`)]));
    return database.db.transaction().execute(async (trx) => {
      const seq = await takeSeq(trx, deployment.id);
      const version = await aVersion(trx, deployment, seq);
      await recordObject(trx, { key, kind: 'release', size_bytes: 9 });
      const release = await insertRelease(trx, {
        ...{
          tenant_id: deployment.tenant_id,
          workspace_id: deployment.workspace_id,
          project_id: deployment.project_id,
        },
        ...{ external_workspace_id: null, external_user_id: null, external_project_id: null },
        id: newId('rel'),
        deployment_id: deployment.id,
        version_id: version.id,
        kind: 'static',
        sha256: String(n),
        object_key: key,
        size_bytes: 9,
        manifest: { files: 1, total_bytes: 9, entrypoint: null },
        start_command: null,
        port: null,
        reuse_key: String(n),
        ready_at: new Date(),
      });
      await recordRelease(trx, version.id, release.id, false);
      await setVersionState(trx, version.id, 'building');
      await setVersionState(trx, version.id, 'ready');
      // The first one stays active: rolled back to, say.
      if (n === 1)
        await switchActiveVersion(trx, { deployment_id: deployment.id, version_id: version.id, seq });
      return { key, release_id: release.id };
    });
  }

  test('by references and age; a dry run takes nothing; what is not Kiln’s is not touched', async () => {
    const all = [];
    for (let n = 1; n <= 5; n++) all.push(await published(n));
    const foreign = path.join(ctx.folders.objects, 'releases', 'not-ours.tar');
    await mkdir(path.dirname(foreign), { recursive: true });
    await writeFile(foreign, 'somebody else’s');
    const expected = [all[1]!.key, all[2]!.key];

    const dry = await collect(ctx, { dry_run: true });
    assert.deepEqual(
      dry.removed.map((item) => item.key),
      expected,
    );
    assert.ok(await objects.head(expected[0]!), 'a dry run removes nothing');

    const wet = await collect(ctx, { dry_run: false });
    assert.deepEqual(
      wet.removed.map((item) => item.key),
      expected,
    );
    assert.equal(wet.removed_bytes, 18);
    for (const [n, { key, release_id }] of all.entries()) {
      const gone = expected.includes(key);
      assert.equal((await objects.head(key)) === null, gone, key);
      assert.equal((await releaseById(database.db, release_id)).collected_at !== null, gone, String(n));
    }
    assert.deepEqual((await collect(ctx, { dry_run: false })).removed, []);
    assert.ok(existsSync(foreign));
    assert.ok(wet.kept.every((item) => item.reason.length > 5));
  });

  test('what a snapshot of a sandbox holds stays until it is deleted or expires', async () => {
    const { tenant_id, workspace_id, project_id } = deployment;
    const nobody = { external_workspace_id: null, external_user_id: null, external_project_id: null };
    const owner = { tenant_id, workspace_id, project_id, ...nobody };
    const object_key = `sources/${'c'.repeat(64)}.tar.zst`;
    await objects.put(object_key, Readable.from([Buffer.from('frozen')]));
    await recordObject(database.db, { key: object_key, kind: 'source', size_bytes: 6 });
    const sandbox_id = newId('sbx');
    const ids = [newId('snp'), newId('snp')];
    await database.db.transaction().execute(async (trx) => {
      await insertSandbox(trx, {
        ...owner,
        ...{ id: sandbox_id, name: 's', slug: 's', state: 'running', template_id: 't', size: 'small' },
        ...{ tags: [], metadata: {}, timeout_sec: null, idle_timeout_sec: null, always_on: false },
        ...{ persistent: true, env_encrypted: null },
      });
      for (const id of ids)
        await insertSnapshot(trx, {
          ...owner,
          ...{ id, sandbox_id, comment: null, keep: true, retention_seconds: null, expires_at: null },
          ...{ sha256: 'c', object_key, size_bytes: 6, files: 1, secrets_left_out: [] },
        });
    });
    const kept = async () =>
      (await collect(ctx, { dry_run: true })).kept.find((item) => item.key === object_key);
    assert.match((await kept())!.reason, /^a snapshot: snp_/);
    await database.db.transaction().execute((trx) => deleteSnapshot(trx, ids[0]!));
    assert.ok(await kept());
    await database.db
      .updateTable('sandbox_snapshots')
      .set({ expires_at: new Date(0) })
      .where('id', '=', ids[1]!)
      .execute();
    assert.equal(await kept(), undefined);
  });

  test('logs and caches go by age, but not those of what is live', async () => {
    const { db } = database;
    const { active_version_id } = (await deploymentById(db, deployment.id))!;
    const version = await versionById(db, active_version_id!);
    const instance = await db.transaction().execute((trx) =>
      insertInstance(trx, {
        ...{ id: newId('ins'), tenant_id: deployment.tenant_id, deployment_id: deployment.id },
        ...{ version_id: version.id, release_id: version.release_id!, operation_id: null, engine_id: null },
        ...{ replica: 0, role: 'live' },
      }),
    );
    const { build_logs, instance_logs, caches } = ctx.folders;
    const stay = [path.join(build_logs, `${version.build_id}.jsonl`)];
    for (const end of ['jsonl', 'jsonl.1']) stay.push(path.join(instance_logs, `${instance.id}.${end}`));
    const go = [path.join(build_logs, 'bld_old.jsonl'), path.join(instance_logs, 'ins_old.jsonl')];
    go.push(path.join(caches, 'shop-123.json'));
    for (const file of [...stay, ...go]) await writeFile(file, '');
    const { removed } = await collect(ctx, { dry_run: false });
    const files = removed.filter(({ kind }) => kind !== 'source' && kind !== 'release');
    assert.deepEqual(
      files.map(({ key, kind }) => [key, kind]),
      go.map((file, at) => [
        path.relative(ctx.folders.data, file),
        ['build_log', 'instance_log', 'cache'][at],
      ]),
    );
    for (const file of stay) assert.ok(existsSync(file), file);
    for (const file of go) assert.ok(!existsSync(file), file);
  });
});

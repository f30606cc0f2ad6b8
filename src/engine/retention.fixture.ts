/** Collecting, on whatever database: the embedded one and a Postgres server differ in what they do with time and locks. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { tempDir } from '../../test/support/folders.ts';
import { aDeployment, aVersion, newId } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import type { Verifier } from '../release/verify.ts';
import type { Database, Db } from '../store/db.ts';
import { deploymentById, switchActiveVersion, takeSeq } from '../store/deployment.ts';
import { insertInstance } from '../store/instance.ts';
import { holdObjects, recordObject } from '../store/object.ts';
import { faultyObjectStore } from '../store/objects/faulty.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { insertOperation } from '../store/operation.ts';
import { insertRelease, releaseById } from '../store/release.ts';
import { insertSandbox } from '../store/sandbox.ts';
import { deleteSnapshot, insertSnapshot } from '../store/snapshot.ts';
import { recordRelease, setVersionState, versionById } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { makeFolders } from './folders.ts';
import type { Supervisor } from './instances.ts';
import { acceptSwitch } from './promote.ts';
import type { Queue } from './queue.ts';
import { collect } from './retention.ts';

const DAY_MS = 24 * 3600 * 1000;

export function collecting(name: string, open: () => Promise<Database>): void {
  describe(`collecting: ${name}`, () => suite(open));
}

/** Something happens before each transaction begins. */
function beforeTransactions(db: Db, happens: () => Promise<unknown>): Db {
  const real = () => db.transaction();
  return new Proxy(db, {
    get(target, name) {
      if (name !== 'transaction') return Reflect.get(target, name, target).bind?.(target);
      return () => ({
        execute: async (work: Parameters<ReturnType<typeof real>['execute']>[0]) => {
          await happens();
          return real().execute(work);
        },
      });
    },
  });
}

async function untilSomebodyWaits(db: Db): Promise<void> {
  for (;;) {
    const { rows } = await sql`select 1 from pg_locks where not granted`.execute(db);
    if (rows.length > 0) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function suite(open: () => Promise<Database>): void {
  let database: Database;
  let objects: ObjectStore;
  let ctx: EngineContext;
  let deployment: Deployment;
  before(async () => {
    const folders = await makeFolders(await tempDir('gc'));
    database = await open();
    objects = fileObjectStore(folders.objects);
    const later = new Date(Date.now() + 60 * DAY_MS);
    const some = { folders, objects, database, db: database.db, retention: { days: 30, keep_versions: 2 } };
    ctx = {
      ...some,
      builder: {},
      image_builder: null,
      cache_total_bytes: 1e9,
      idempotency_retention_ms: 3 * DAY_MS,
      now: () => later,
      newId,
      edge: { waitForGeneration: async () => true },
      vault: { open: () => JSON.stringify({ vars: {}, secret_names: [] }) },
      verifier: {
        isDoubted: () => false,
        verify: async ({ object_key }) => ((await objects.head(object_key)) ? 'whole' : 'gone'),
      } satisfies Verifier,
    } as unknown as EngineContext;
    deployment = await aDeployment(database.db);
  });
  after(async () => {
    await database.close();
    await rm(ctx.folders.data, { recursive: true, force: true });
  });

  /** A ready version with a release of its own, stored and in the books. */
  async function published(
    n: number,
    of = deployment,
  ): Promise<{ key: string; release_id: string; version_id: string }> {
    const key = `releases/${String(n).padStart(64, '0')}.tar`;
    await objects.put(key, Readable.from([Buffer.from(`release ${n}`)]));
    return database.db.transaction().execute(async (trx) => {
      const seq = await takeSeq(trx, of.id);
      const version = await aVersion(trx, of, seq);
      await recordObject(trx, { key, kind: 'release', size_bytes: 9 });
      const release = await insertRelease(trx, {
        ...{
          tenant_id: of.tenant_id,
          workspace_id: of.workspace_id,
          project_id: of.project_id,
        },
        ...{ external_workspace_id: null, external_user_id: null, external_project_id: null },
        id: newId('rel'),
        deployment_id: of.id,
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
      await trx.updateTable('versions').set({ kind: 'static' }).where('id', '=', version.id).execute();
      await setVersionState(trx, version.id, 'building');
      await setVersionState(trx, version.id, 'ready');
      // The first one stays active: rolled back to, say.
      if (version.version_number === 1)
        await switchActiveVersion(trx, { deployment_id: of.id, version_id: version.id, seq });
      return { key, release_id: release.id, version_id: version.id };
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

  test('a rollback between two removals keeps the artifact that it goes back to', async () => {
    const shop = await aDeployment(database.db);
    const all = [];
    for (let n = 101; n <= 106; n++) all.push(await published(n, shop));
    const [, first, second, third] = all as [unknown, ...typeof all];
    let removals = 0;
    const rollBack = async () => {
      const version = await versionById(database.db, third!.version_id);
      const nobody = { adjust: async () => undefined } as unknown as Supervisor;
      await acceptSwitch(ctx, {} as Queue, nobody, version, { kind: 'rollback', idempotency: null });
    };
    const report = await collect(
      {
        ...ctx,
        db: beforeTransactions(database.db, async () => {
          if (++removals === 2) await rollBack();
        }),
      },
      { dry_run: false },
    );
    assert.deepEqual(
      report.removed.map(({ key }) => key),
      [first!.key, second!.key],
    );
    assert.match(report.kept.find(({ key }) => key === third!.key)!.reason, /used again|active/);
    assert.equal((await deploymentById(database.db, shop.id))!.active_version_id, third!.version_id);
    assert.ok(await objects.head(third!.key), 'what is active is stored');
    await assert.rejects(
      versionById(database.db, second!.version_id).then((version) =>
        acceptSwitch(ctx, {} as Queue, {} as Supervisor, version, { kind: 'rollback', idempotency: null }),
      ),
      { code: 'ARTIFACT_GONE' },
    );
  });

  test('what an operation that was accepted meanwhile needs stays, however long it waits', async () => {
    const shop = await aDeployment(database.db);
    const all = [];
    for (let n = 201; n <= 204; n++) all.push(await published(n, shop));
    const wanted = all[1]!;
    const db = beforeTransactions(database.db, () =>
      database.db.transaction().execute(async (trx) => {
        const seq = await takeSeq(trx, shop.id);
        const { tenant_id, id: deployment_id } = shop;
        const row = { tenant_id, deployment_id, version_id: wanted.version_id, seq };
        await insertOperation(trx, { ...row, id: newId('op'), kind: 'rollback' });
      }),
    );
    const report = await collect({ ...ctx, db }, { dry_run: false });
    assert.equal(
      report.kept.find(({ key }) => key === wanted.key)?.reason,
      `unfinished: version 2 of ${shop.slug}`,
    );
    assert.ok(await objects.head(wanted.key));
  });

  test('what was stored and then belonged to nobody is entered, and goes when its time is over', async () => {
    const strays = [`blobs/sha256/${'e'.repeat(64)}`, `releases/${'e'.repeat(64)}.tar`];
    const foreign = 'blobs/sha256/not-a-digest';
    for (const key of [...strays, foreign]) await objects.put(key, Readable.from([Buffer.from('stray')]));
    const keys = (items: { key: string }[]) =>
      items.map(({ key }) => key).filter((key) => strays.includes(key));
    const soon = { ...ctx, now: () => new Date() };
    assert.deepEqual(keys((await collect(soon, { dry_run: true })).kept), [], 'a dry run enters nothing');
    assert.deepEqual(keys((await collect(soon, { dry_run: false })).kept), strays);
    assert.deepEqual(keys((await collect(ctx, { dry_run: false })).removed), strays);
    for (const key of strays) assert.equal(await objects.head(key), null);
    assert.ok(await objects.head(foreign));
  });

  test('whoever holds an object while it is being removed waits, and is told that it is gone', async (t) => {
    if (database.kind === 'pglite') return t.skip('one connection: nothing comes in between');
    const shop = await aDeployment(database.db);
    const all = [];
    for (let n = 301; n <= 304; n++) all.push(await published(n, shop));
    const held: { key: string; missing: Promise<string | null> }[] = [];
    const store: ObjectStore = {
      ...faultyObjectStore(objects, []),
      delete: async (key: string) => {
        held.push({ key, missing: holdObjects(database.db, objects, [{ key, kind: 'release' }]) });
        await untilSomebodyWaits(database.db);
        await objects.delete(key);
      },
    };
    const { removed } = await collect({ ...ctx, objects: store }, { dry_run: false });
    assert.deepEqual(
      held.map(({ key }) => key),
      removed.map(({ key }) => key),
    );
    for (const { key, missing } of held) assert.equal(await missing, key);
    assert.deepEqual(
      removed.map(({ key }) => key),
      [all[1]!.key],
    );
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

  test('answers to idempotent requests are kept as long as the settings say', async () => {
    const before = (days: number) => new Date(ctx.now().getTime() - days * DAY_MS);
    for (const days of [2, 4])
      await database.db
        .insertInto('idempotency_keys')
        .values({
          ...{
            tenant_id: deployment.tenant_id,
            method: 'POST',
            path: '/x',
            key: `${days} days`,
            body_sha256: '',
          },
          ...{ owner: 'o', status: 200, answer: '', locked_until: null, created_at: before(days) },
        })
        .execute();
    await collect(ctx, { dry_run: false });
    const left = await database.db.selectFrom('idempotency_keys').select('key').execute();
    assert.deepEqual(left, [{ key: '2 days' }]);
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
}

/**
 * Everything that changes deployments of one tenant, at once, on a Postgres server: with one order of locks nobody meets
 * a deadlock, callers least of all (store/transact.ts).
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import type { Deployment } from '../src/domain/deployment.ts';
import { KilnError } from '../src/domain/errors.ts';
import type { Version } from '../src/domain/version.ts';
import type { EngineContext } from '../src/engine/context.ts';
import { LocalEngine } from '../src/engine/create.ts';
import { makeFolders } from '../src/engine/folders.ts';
import { type Database, openDatabase } from '../src/store/db.ts';
import { setInstanceState, unstoppedInstances } from '../src/store/instance.ts';
import { getOperation } from '../src/store/operation.ts';
import { anIntent, aReleasedVersion, contextOf, FakeRuntime } from './support/bare-engine.ts';
import { tempDir } from './support/folders.ts';
import { type Postgres, postgresBin, startPostgres } from './support/postgres.ts';
import { aDeployment } from './support/rows.ts';

const bin = postgresBin();
const skip = bin === null ? 'no Postgres server is installed (scripts/system-deps.sh installs it)' : false;
const ROUNDS = 6;

describe('changes of one tenant, all at once', { skip }, () => {
  let postgres: Postgres;
  before(async () => {
    postgres = await startPostgres(bin!);
  });
  after(() => postgres.stop());

  test('promotions, rollbacks, scales, cancels, removals, crashes: no deadlock', {
    timeout: 240_000,
  }, async () => {
    const url = await postgres.fresh();
    const database = await openDatabase({ url });
    const said: string[] = [];
    const folders = await makeFolders(await tempDir('hammer'));
    const runtime = new FakeRuntime();
    const say: EngineContext['say'] = (level, message, data) => {
      if (level === 'error') said.push(`${message} ${JSON.stringify(data)}`);
    };
    const ctx = contextOf(database, 'eng_hammer', { folders, runtime, say });
    const engine = new LocalEngine({ ctx, drivers: async () => [] });
    await engine.prepare();
    await engine.start();
    const hammered = new Hammered(database, ctx, engine);
    try {
      for (let n = 0; n < 6; n++) await hammered.add(n % 2 === 0 ? 'static' : 'dynamic');
      for (let round = 0; round < ROUNDS; round++) await hammered.round(round);
    } finally {
      await engine.stop();
      await database.close();
      await rm(folders.data, { recursive: true, force: true });
    }
    assert.deepEqual(hammered.problems, []);
    assert.deepEqual(said, []);
    assert.equal(await deadlocks(url), 0, 'transactions that waited for each other, retried or not');
  });
});

/** Counted by the server itself; sessions report at the latest when they end. */
async function deadlocks(url: string): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query(
      'select deadlocks::int from pg_stat_database where datname = current_database()',
    );
    return rows[0].deadlocks;
  } finally {
    await client.end();
  }
}

interface Target {
  deployment: Deployment;
  kind: 'static' | 'dynamic';
  old: Version;
}

class Hammered {
  readonly problems: string[] = [];
  readonly #targets: Target[] = [];

  readonly #database: Database;
  readonly #ctx: EngineContext;
  readonly #engine: LocalEngine;

  constructor(database: Database, ctx: EngineContext, engine: LocalEngine) {
    this.#database = database;
    this.#ctx = ctx;
    this.#engine = engine;
  }

  async add(kind: 'static' | 'dynamic'): Promise<void> {
    const deployment = await aDeployment(this.#database.db);
    const old = await aReleasedVersion(this.#ctx, deployment, { kind, state: 'ready' });
    this.#targets.push({ deployment, kind, old });
    await this.#engine.promote(old, { kind: 'promote', idempotency: null, wait_ms: 30_000 });
  }

  async round(n: number): Promise<void> {
    const work: Promise<unknown>[] = [];
    for (const { deployment, kind, old } of this.#targets) {
      const next = await aReleasedVersion(this.#ctx, deployment, { kind, state: 'building' });
      const doomed = await aReleasedVersion(this.#ctx, deployment, { kind, state: 'building' });
      const gone = await aDeployment(this.#database.db);
      const buried = await aReleasedVersion(this.#ctx, gone, { kind: 'static', state: 'building' });
      work.push(
        this.#published(next),
        this.#tried('rollback', () =>
          this.#engine.promote(old, { kind: 'rollback', idempotency: null, wait_ms: 30_000 }),
        ),
        this.#tried('scale', () => this.#engine.scale(deployment, 1 + (n % 2))),
        this.#cancelled(doomed),
        this.#published(buried),
        this.#tried('remove', () => this.#engine.removeDeployment(gone)),
        this.#tried('instances', () => this.#flip(deployment)),
      );
    }
    await Promise.all(work);
  }

  async #published(version: Version): Promise<void> {
    const { id } = await anIntent(this.#ctx, version, 'publish');
    await this.#tried('publish', () => this.#engine.waitForOperation(id, 60_000));
    const ended = await getOperation(this.#database.db, id);
    if (ended?.finished_at === null) this.problems.push(`publish ${id} did not end`);
    // A removal may have cancelled it; what must not be is a fault of the engine.
    if (ended?.failure?.fault === 'engine') this.problems.push(`publish: ${ended.failure.message}`);
  }

  async #cancelled(version: Version): Promise<void> {
    const { id } = await anIntent(this.#ctx, version, 'publish');
    await this.#tried('cancel', () => this.#engine.cancel(id));
    const ended = await this.#engine.waitForOperation(id, 60_000);
    if (ended.failure?.fault === 'engine') this.problems.push(`cancelled publish: ${ended.failure.message}`);
  }

  /** As when probes of live instances fail, and do not. */
  async #flip(deployment: Deployment): Promise<void> {
    const rows = await unstoppedInstances(this.#database.db, { deployment_id: deployment.id });
    for (const row of rows.filter(({ role }) => role === 'live'))
      for (const to of ['unhealthy', 'healthy'] as const)
        await this.#database.db.transaction().execute((trx) => setInstanceState(trx, row.id, to));
  }

  /** Refusals are answers; anything else is a problem. */
  async #tried(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const expected = ['CONFLICT', 'NOT_FOUND', 'SUPERSEDED'];
      if (error instanceof KilnError && expected.includes(error.code)) return;
      this.problems.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

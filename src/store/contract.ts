/** What the store promises on every database: run on PGlite by store.test.ts, on a Postgres server by the system tests. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import { aDeployment, anOperation, aVersion, newId } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import type { Operation } from '../domain/operation.ts';
import type { Plan } from '../domain/plan.ts';
import { type Database, notify } from './db.ts';
import { deploymentById, lockDeployment, switchActiveVersion, takeSeq } from './deployment.ts';
import { appendEvent, eventsAfter } from './event.ts';
import {
  abandonIdempotent,
  beginIdempotent,
  finishIdempotent,
  readIdempotent,
  recordSubject,
} from './idempotency.ts';
import { claimOperation, finishOperation, getOperation, guard, LeaseLost } from './operation.ts';
import { readRoutes } from './route.ts';
import { ensureOwner, ensureTenant } from './tenant.ts';
import { recordPlan, setVersionState } from './version.ts';

async function until(is_so: () => boolean): Promise<void> {
  for (let looks = 0; !is_so(); looks++) {
    if (looks > 1000) throw new Error('it did not come');
    await pause(20);
  }
}

export function storeContract(name: string, openDatabase: () => Promise<Database>): void {
  describe(`the store on ${name}`, () => {
    let database: Database;
    before(async () => {
      database = await openDatabase();
    });
    after(() => database.close());

    test('operation rules hold for any interleaving of two workers, cancels and lost leases (I4, I5)', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
          await new OperationModel(database, await aDeployment(database.db)).run(steps);
        }),
        { numRuns: 150 },
      );
    });

    test('workers racing for one publish: exactly one gets it', async () => {
      const deployment = await aDeployment(database.db);
      const operation = await anOperation(database.db, deployment, 'publish');
      const claims = await Promise.all(
        Array.from({ length: 20 }, (_, n) =>
          claimOperation(database.db, operation.id, { owner: `w${n}`, lease_ms: 60_000 }),
        ),
      );
      assert.equal(claims.filter((claim) => claim !== null).length, 1);
    });

    const aKey = async () => {
      const { tenant_id } = await aDeployment(database.db);
      return { tenant_id, method: 'POST', path: '/x', key: newId('req'), owner: 'nobody' };
    };

    test('a hundred requests with one idempotency key: one executes, all others see its answer (I6)', async () => {
      const scope = await aKey();
      const begun = await Promise.all(
        Array.from({ length: 100 }, (_, n) =>
          beginIdempotent(database.db, { ...scope, owner: `o${n}` }, 'body', 60_000),
        ),
      );
      assert.equal(begun.filter(({ kind }) => kind === 'execute').length, 1);
      assert.equal(begun.filter(({ kind }) => kind === 'running').length, 99);
      const owner = `o${begun.findIndex(({ kind }) => kind === 'execute')}`;
      await finishIdempotent(database.db, { ...scope, owner }, 201, '{"made":1}');
      const late = { ...scope, owner: 'late' };
      const again = await beginIdempotent(database.db, late, 'body', 60_000);
      assert.equal(again.kind === 'done' && again.stored.answer, '{"made":1}');
      assert.equal((await beginIdempotent(database.db, late, 'other', 60_000)).kind, 'other_body');
    });

    test('a key left by a dead engine is taken over once its lock has run out', async () => {
      const scope = await aKey();
      const dead = { ...scope, owner: 'dead' };
      const next = { ...scope, owner: 'next' };
      assert.equal((await beginIdempotent(database.db, dead, 'body', 0)).kind, 'execute');
      assert.equal((await beginIdempotent(database.db, next, 'body', 60_000)).kind, 'execute');
      // The dead one, should it still live, can store neither its answer nor what it made any more.
      await finishIdempotent(database.db, dead, 200, 'stale');
      assert.equal(await readIdempotent(database.db, scope), 'running');
      await recordSubject(database.db, next, { made: 'by next' });
      await assert.rejects(recordSubject(database.db, dead, { made: 'by dead' }), { code: 'UNAVAILABLE' });
      await abandonIdempotent(database.db, next);
      const third = await beginIdempotent(database.db, { ...scope, owner: 'third' }, 'body', 60_000);
      assert.deepEqual(third, { kind: 'execute', previous_subject: { made: 'by next' } });
    });

    test('who listens hears a notification once, however many begin to listen at the same time', async () => {
      const heard: string[] = [];
      const stops = await Promise.all(
        ['a', 'b', 'c'].map((who) =>
          database.listen('kiln_work', (payload) => payload && heard.push(who + payload)),
        ),
      );
      await database.db.transaction().execute((trx) => notify(trx, 'kiln_work', '1'));
      await until(() => heard.length >= 3);
      await database.db.transaction().execute((trx) => notify(trx, 'kiln_work', '2'));
      await until(() => heard.length >= 6);
      assert.deepEqual(heard.toSorted(), ['a1', 'a2', 'b1', 'b2', 'c1', 'c2']);
      for (const stop of stops) await stop();
    });

    test('two engines that start at once make one tenant', async () => {
      const named = { name: 'Once', slug: `once-${newId('ten')}` };
      const made = await Promise.all(
        [1, 2, 3].map(() => database.db.transaction().execute((trx) => ensureTenant(trx, newId, named))),
      );
      assert.equal(new Set(made.map(({ id }) => id)).size, 1);
    });

    test('events of a tenant are numbered without gaps, in the order they become visible', async () => {
      const { tenant_id } = await aDeployment(database.db);
      const first = (await eventsAfter(database.db, { tenant_id, after_seq: 0, limit: 10_000 })).length;
      await Promise.all(
        Array.from({ length: 30 }, (_, n) =>
          database.db
            .transaction()
            .execute((trx) =>
              appendEvent(trx, { id: newId('evt'), tenant_id, type: 'webhook.test', data: { n } }),
            ),
        ),
      );
      const events = await eventsAfter(database.db, { tenant_id, after_seq: first, limit: 100 });
      assert.deepEqual(
        events.map(({ seq }) => seq),
        Array.from({ length: 30 }, (_, n) => first + n + 1),
      );
    });

    test('tenants that choose the same names at once never meet in one host', async () => {
      const slugs = ['left', 'right', 'third'].map((name) => `${name}-${newId('ten').slice(-8)}`);
      const tenants: string[] = [];
      for (const slug of slugs) {
        const named = { name: slug, slug };
        const tenant = await database.db.transaction().execute((trx) => ensureTenant(trx, newId, named));
        tenants.push(tenant.id);
      }
      const owners = await Promise.all(
        [...tenants, ...tenants].map((id) =>
          database.db
            .transaction()
            .execute((trx) => ensureOwner(trx, newId, id, { workspace_slug: 'acme', project_slug: 'shop' })),
        ),
      );
      const workspaces = new Map(owners.map((owner) => [owner!.workspace.id, owner!.workspace]));
      assert.equal(workspaces.size, 3, 'each tenant finds its own by the slug it chose');
      assert.deepEqual([...new Set([...workspaces.values()].map(({ slug }) => slug))], ['acme']);
      const made: string[] = [];
      for (const owner of owners.slice(0, 3)) made.push((await aDeployment(database.db, 'shop', owner)).id);
      const { rows } = await readRoutes(database.db);
      const hosts = rows.filter((row) => made.includes(row.deployment_id));
      assert.equal(new Set(hosts.map(({ slug, host_label }) => `${slug}.${host_label}`)).size, 3);
    });

    test('a plan is written once; a ready version never fails (I1)', async () => {
      const deployment = await aDeployment(database.db);
      await database.db.transaction().execute(async (trx) => {
        const version = await aVersion(trx, deployment, await takeSeq(trx, deployment.id));
        const settings = {} as never;
        const plan = { mode: 'static', start: null } as Plan;
        await recordPlan(trx, version.id, { plan, kind: 'static', run_settings: settings });
        await recordPlan(trx, version.id, { plan, kind: 'static', run_settings: settings });
        await assert.rejects(
          recordPlan(trx, version.id, {
            plan: { ...plan, start: 'x' },
            kind: 'static',
            run_settings: settings,
          }),
          /another plan/,
        );
        await setVersionState(trx, version.id, 'building');
        await setVersionState(trx, version.id, 'ready');
        await assert.rejects(setVersionState(trx, version.id, 'failed'), /cannot become failed/);
      });
    });
  });
}

type Step =
  | { do: 'accept'; kind: 'publish' | 'rollback' }
  | { do: 'claim' | 'finish' | 'switch'; worker: 0 | 1; nth: number }
  | { do: 'lose'; nth: number };

const worker = fc.constantFrom<0 | 1>(0, 1);
const nth = fc.nat({ max: 5 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant('accept' as const),
    kind: fc.constantFrom('publish' as const, 'rollback' as const),
  }),
  fc.record({ do: fc.constantFrom('claim' as const, 'finish' as const, 'switch' as const), worker, nth }),
  fc.record({ do: fc.constant('lose' as const), nth }),
);

/** Random steps against the real tables, with the rules of I4 and I5 checked after each. */
class OperationModel {
  readonly #database: Database;
  readonly #deployment: Deployment;
  readonly #operations: Operation[] = [];
  /** Tokens that a worker believes to hold, also after it lost them. */
  readonly #held: Map<string, number>[] = [new Map(), new Map()];
  #highest_switch = 0;

  constructor(database: Database, deployment: Deployment) {
    this.#database = database;
    this.#deployment = deployment;
  }

  async run(steps: Step[]): Promise<void> {
    for (const next of steps) {
      if (next.do === 'accept')
        this.#operations.push(await anOperation(this.#database.db, this.#deployment, next.kind));
      else {
        const operation = this.#operations[next.nth];
        if (!operation) continue;
        if (next.do === 'lose') await this.#lose(operation);
        else if (next.do === 'claim') await this.#claim(next.worker, operation);
        else await this.#write(next.worker, operation, next.do);
      }
      await this.#check();
    }
  }

  async #claim(by: 0 | 1, operation: Operation): Promise<void> {
    const before = await this.#rows();
    const claimed = await claimOperation(this.#database.db, operation.id, {
      owner: `w${by}`,
      lease_ms: 60_000,
    });
    if (claimed === null) return;
    this.#held[by]!.set(operation.id, claimed.lease_token);
    if (operation.kind !== 'publish') return;
    const earlier = before.filter((row) => row.kind === 'publish' && row.seq < operation.seq);
    assert.ok(
      earlier.every((row) => row.finished_at !== null),
      'an earlier publish was passed over',
    );
  }

  /** As after a pause that outlasted the lease: the next claim takes the operation over. */
  async #lose(operation: Operation): Promise<void> {
    await this.#database.db
      .updateTable('operations')
      .set({ lease_expires_at: new Date(0) })
      .where('id', '=', operation.id)
      .where('state', '=', 'running')
      .execute();
  }

  async #write(by: 0 | 1, operation: Operation, what: 'finish' | 'switch'): Promise<void> {
    const token = this.#held[by]!.get(operation.id);
    if (token === undefined) return;
    const row = await getOperation(this.#database.db, operation.id);
    const entitled = row!.state === 'running' && row!.lease_token === token;
    const writing = this.#database.db.transaction().execute(async (trx) => {
      await guard(trx, { operation_id: operation.id, token }, 60_000);
      await lockDeployment(trx, this.#deployment.id);
      const { switched } = await switchActiveVersion(trx, {
        deployment_id: this.#deployment.id,
        version_id: operation.version_id,
        seq: operation.seq,
      });
      if (what === 'finish')
        await finishOperation(trx, operation.id, {
          state: 'succeeded',
          promoted: switched,
          superseded: !switched,
          failure: null,
        });
      return switched;
    });
    if (!entitled) return void (await assert.rejects(writing, LeaseLost));
    const switched = await writing;
    // Writing the same switch again (a stage run twice) changes nothing.
    assert.equal(switched, operation.seq > this.#highest_switch);
    this.#highest_switch = Math.max(this.#highest_switch, operation.seq);
  }

  async #check(): Promise<void> {
    const deployment = await deploymentById(this.#database.db, this.#deployment.id);
    assert.equal(
      deployment!.active_seq,
      this.#highest_switch,
      'the highest intent that switched is in force',
    );
    const running = (await this.#rows()).filter((row) => row.kind === 'publish' && row.state === 'running');
    assert.ok(running.length <= 1, 'two publishes of one deployment at once');
  }

  #rows(): Promise<Operation[]> {
    return this.#database.db
      .selectFrom('operations')
      .selectAll()
      .where('deployment_id', '=', this.#deployment.id)
      .execute();
  }
}

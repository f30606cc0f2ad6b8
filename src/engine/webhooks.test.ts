import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { newId } from '../../test/support/rows.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { ensureTenant } from '../store/tenant.ts';
import { makeVault } from '../store/vault.ts';
import { insertDelivery, insertWebhook, listDeliveries, recordAttempt } from '../store/webhook.ts';
import type { EngineContext } from './context.ts';
import { WebhookSender } from './webhooks.ts';

let database: Database;
let tenant_id: string;
before(async () => {
  database = await testDatabase();
  tenant_id = (
    await database.db.transaction().execute((trx) => ensureTenant(trx, newId, { name: 'Test', slug: 'test' }))
  ).id;
});
after(() => database.close());

/** What the sender uses of it. */
function context(): EngineContext {
  const vault = makeVault(randomBytes(32));
  const of = {
    id: 'eng_1',
    db: database.db,
    database,
    vault,
    newId,
    allow_private_webhooks: true,
    say: () => {},
  };
  return of as unknown as EngineContext;
}

async function aWebhook(secret_encrypted: string, headers_encrypted: string): Promise<string> {
  return database.db.transaction().execute(async (trx) => {
    const webhook = await insertWebhook(trx, {
      ...{ id: newId('wh'), tenant_id, project_id: null, name: 'hook', url: 'http://127.0.0.1:9/' },
      ...{ events: ['*'], secret_preview: 'x', retry_count: 3, metadata: {} },
      ...{ secret_encrypted, headers_encrypted },
    });
    const of = { id: newId('whd'), event_id: newId('evt'), event_type: 'test', body: '{}', replay_of: null };
    await insertDelivery(trx, webhook, of);
    return webhook.id;
  });
}

const delivery = async (webhook_id: string) =>
  (await listDeliveries(database.db, { webhook_id }, { limit: 1, offset: 0, cursor: null })).data[0]!;

it('a webhook whose secret cannot be read is an attempt that failed, and holds up nobody', async () => {
  const id = await aWebhook('not sealed with this key', 'neither');
  const sender = new WebhookSender(context());
  await sender.start();
  try {
    let turns = 0;
    for (; (await delivery(id)).attempts === 0; turns++) {
      assert.ok(turns < 500, 'no attempt was recorded');
      await pause(10);
    }
    const { attempts, state, error_message } = await delivery(id);
    assert.deepEqual([attempts, state], [1, 'pending']);
    assert.match(error_message ?? '', /key of this data folder/);
  } finally {
    await sender.stop();
  }
});

it('what fails by a fault of ours is left alone for a while, and timers still run', async () => {
  const ctx = context();
  await aWebhook('x', 'y');
  let failures = 0;
  const say = (_: string, message: string) => {
    if (message.includes('could not be served')) failures++;
  };
  // The row of the attempt cannot be written, so the delivery stays due.
  const db = new Proxy(database.db, {
    get(target, name) {
      if (name === 'updateTable')
        return (table: 'webhooks') => {
          if ((table as string) === 'webhook_deliveries') throw new Error('no');
          return target.updateTable(table);
        };
      const value = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const sender = new WebhookSender({ ...ctx, db, say } as unknown as EngineContext);
  await sender.start();
  for (let turns = 0; failures === 0; turns++) {
    assert.ok(turns < 500, 'nothing failed');
    await pause(10);
  }
  await pause(300);
  await sender.stop();
  assert.ok(failures < 10, `${failures} failures`);
});

it('the next attempt is due by the clock of the database', async () => {
  const id = await aWebhook('x', 'y');
  const { id: delivery_id } = await delivery(id);
  await recordAttempt(database.db, delivery_id, {
    ...{ state: 'pending', wait_ms: 3_600_000, response_status: 500, response_excerpt: null },
    ...{ error_message: 'x', duration_ms: 1 },
  });
  const wait_ms = (await delivery(id)).next_attempt_at.getTime() - Date.now();
  assert.ok(Math.abs(wait_ms - 3_600_000) < 60_000, `${wait_ms} ms`);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { aDeployment, newId } from '../../test/support/rows.ts';
import { testDatabase } from './database.fixture.ts';
import { appendEvent, lastEventSeq, nextEvents } from './event.ts';
import { transact } from './transact.ts';

test('events that are not wanted are passed over once, and none that is', async () => {
  const database = await testDatabase();
  try {
    const { db } = database;
    const { tenant_id, id: deployment_id } = await aDeployment(db);
    const tell = (of: { deployment_id?: string }) =>
      transact(db, (trx) =>
        appendEvent(trx, { ...{ id: newId('evt'), tenant_id, type: 'webhook.test', data: {} }, ...of }),
      );
    for (let n = 0; n < 5; n++) await tell({});
    const of = { tenant_id, deployment_id, limit: 2 };
    const none = await nextEvents(db, { ...of, after_seq: 0 });
    const last = await lastEventSeq(db, tenant_id);
    assert.deepEqual(none, { events: [], after_seq: last, is_last: true });

    for (let n = 0; n < 3; n++) await tell({ deployment_id });
    await tell({});
    const first = await nextEvents(db, { ...of, after_seq: none.after_seq });
    assert.deepEqual([first.events.length, first.after_seq, first.is_last], [2, last + 2, false]);
    const rest = await nextEvents(db, { ...of, after_seq: first.after_seq });
    assert.deepEqual([rest.events.length, rest.after_seq, rest.is_last], [1, last + 4, true]);
  } finally {
    await database.close();
  }
});

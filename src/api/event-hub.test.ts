import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import type { Database } from '../store/db.ts';
import { makeEventHub } from './event-hub.ts';

test('a stream that is followed for long leaves nothing behind with each wake-up', async () => {
  let wake = (_tenant_id: string) => {};
  const listen: Database['listen'] = async (_channel, on_payload) => {
    wake = on_payload;
    return async () => {};
  };
  const hub = makeEventHub({ listen } as Database);
  const { signal } = new AbortController();
  for (let n = 0; n < 5; n++) {
    const next = hub.next('ten_1', 60_000, signal);
    wake('ten_1');
    await next;
  }
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});

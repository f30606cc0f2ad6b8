/** Webhooks and the event stream against a real engine: whoever dies, nothing is missed and nothing is new twice. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { rm } from 'node:fs/promises';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { Client, Json } from './support/client.ts';
import { tempDir } from './support/folders.ts';
import { startKilnProcess } from './support/kiln.ts';

interface Got {
  body: string;
  signature: string;
}

/** Takes what comes on a fixed port; can be killed and started again. */
class Receiver {
  readonly got: Got[] = [];
  port = 0;
  status = 200;
  #server: http.Server | null = null;

  async start(): Promise<void> {
    const server = http.createServer((request, response) => {
      let body = '';
      request.on('data', (part) => {
        body += part;
      });
      request.on('end', () => {
        if (this.status === 200)
          this.got.push({ body, signature: String(request.headers['miosa-signature']) });
        response.writeHead(this.status).end();
      });
    });
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve));
    this.port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  kill(): void {
    this.#server?.close();
    this.#server?.closeAllConnections();
  }

  events(): Json[] {
    return this.got.map(({ body }) => JSON.parse(body));
  }
}

async function until(what: string, is_so: () => boolean | Promise<boolean>, within_ms = 20_000) {
  const end = Date.now() + within_ms;
  while (!(await is_so())) {
    assert.ok(Date.now() < end, `not within ${within_ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const names = (events: Json[]) => [...new Map(events.map((event) => [event.id, event.data.name])).values()];

/** Ids and names of the tenant's events after `last_id`, until there are `count`. */
async function streamed(kiln: Client, last_id: string | null, count: number): Promise<[string, string][]> {
  const gone = new AbortController();
  const response = await fetch(`${kiln.api_url}/api/v1/events/stream?types=deployment.created&from=start`, {
    headers: {
      authorization: `Bearer ${kiln.key}`,
      ...(last_id === null ? {} : { 'last-event-id': last_id }),
    },
    signal: gone.signal,
  });
  const seen: [string, string][] = [];
  let text = '';
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream() as never)) {
    text += chunk;
    const frames = text.split('\n\n');
    text = frames.pop()!;
    for (const frame of frames) {
      const data = /^data: (.*)$/m.exec(frame)?.[1];
      if (data !== undefined) seen.push([JSON.parse(data).id, JSON.parse(data).data.name]);
    }
    if (seen.length >= count) break;
  }
  gone.abort();
  return seen.slice(0, count);
}

test('receiver and engine are killed; every event arrives in order, by webhook and by stream', async () => {
  const data_dir = await tempDir('hooks');
  const receiver = new Receiver();
  await receiver.start();
  let kiln = await startKilnProcess(data_dir, { 'allow-private-webhooks': 'yes' });
  try {
    const url = `http://127.0.0.1:${receiver.port}/hook`;
    const body = { url, events: ['deployment.created'], retry_count: 10 };
    const hook = await kiln.ask('POST', '/webhooks', body);
    await kiln.deployment('one');
    await until('the first', () => receiver.got.length === 1);
    receiver.kill();
    for (const name of ['two', 'three', 'four']) await kiln.deployment(name);
    const log = () => kiln.ask('GET', `/webhooks/${hook.id}/deliveries`);
    await until('an attempt fails', async () => (await log()).some((row: Json) => row.attempts > 0));
    await kiln.kill();
    await receiver.start();
    kiln = await startKilnProcess(data_dir, { 'allow-private-webhooks': 'yes' });
    await kiln.deployment('five');
    const all = ['one', 'two', 'three', 'four', 'five'];
    await until('all of them', () => names(receiver.events()).length === all.length);
    assert.deepEqual(names(receiver.events()), all);
    for (const { body, signature } of receiver.got) {
      const [, t, v1] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(signature)!;
      assert.equal(v1, createHmac('sha256', hook.secret).update(`${t}.${body}`).digest('hex'));
      assert.ok(Math.abs(Date.now() / 1000 - Number(t)) < 60);
    }
    await until('the log', async () => (await log()).every((row: Json) => row.state === 'delivered'));

    const first = await streamed(kiln, null, 2);
    const rest = await streamed(kiln, first[1]![0], 3);
    assert.deepEqual(
      [...first, ...rest].map(([, name]) => name),
      all,
    );

    await kiln.ask('PATCH', `/webhooks/${hook.id}`, { retry_count: 0 });
    receiver.status = 500;
    const tested = await kiln.ask('POST', `/webhooks/${hook.id}/test`);
    const delivery = async (id: string) => (await log()).find((row: Json) => row.id === id);
    await until('given up', async () => (await delivery(tested.id)).state === 'failed');
    assert.match((await delivery(tested.id)).error_message, /answered 500/);
    receiver.status = 200;
    await kiln.ask('POST', `/webhooks/${hook.id}/deliveries/${tested.id}/replay`);
    await until('the replay', () => receiver.events().some(({ id }) => id === tested.event_id));
    assert.equal(await kiln.stop(), 0);
  } finally {
    receiver.kill();
    await kiln.kill();
    await rm(data_dir, { recursive: true, force: true });
  }
});

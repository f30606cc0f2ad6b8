/** I9 under load: while production is switched again and again, no request fails and no answer is mixed. */
import assert from 'node:assert/strict';
import http from 'node:http';
import type net from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { appRoute, ask, edgeFor, MemoryFeed, MemoryObjects, staticRoute } from './fixture.ts';

/**
 * A version of the app that answers with its own name only, in several parts. `kill` is what the reconciler does
 * once it believes the instance idle: every connection is cut without mercy.
 */
async function startVersion(name: string) {
  const server = http.createServer(async (req, res) => {
    const body = req.method === 'POST' ? await buffer(req) : Buffer.alloc(0);
    res.writeHead(200, { 'x-version': name });
    for (let i = 0; i < 5; i++) {
      res.write(`${name}\n`.repeat(200));
      await new Promise((resolve) => setImmediate(resolve));
    }
    res.end(`${name} ${body.length}`);
  });
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const kill = (): void => {
    for (const socket of sockets) socket.resetAndDestroy();
    server.close();
  };
  const { port } = server.address() as net.AddressInfo;
  return { id: `ins_${name}`, host: '127.0.0.1', port, kill };
}

interface Load {
  answers: number;
  failures: string[];
  versions: Set<string>;
}

/** Clients that ask without a pause until `done`; each answer is checked to come from one version, whole. */
function hammer(
  port: number,
  clients: number,
  until: () => boolean,
): { load: Load; finished: Promise<unknown> } {
  const load: Load = { answers: 0, failures: [], versions: new Set() };
  const client = async (index: number): Promise<void> => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; !until(); i++) {
      const post = (i + index) % 3 === 0;
      const options = post ? { method: 'POST', body: 'b'.repeat(1000) } : {};
      try {
        const answer = await ask(port, '/', { agent, ...options });
        const name = String(answer.headers['x-version'] ?? answer.body.split('\n', 1)[0]);
        const whole = isWhole(answer.body, name, post ? 1000 : 0);
        if (answer.status !== 200 || !whole)
          load.failures.push(`${answer.status} ${answer.body.slice(0, 80)}`);
        load.versions.add(name);
      } catch (error) {
        load.failures.push(String(error));
      }
      load.answers++;
    }
    agent.destroy();
  };
  return { load, finished: Promise.all(Array.from({ length: clients }, (_, index) => client(index))) };
}

function isWhole(body: string, name: string, posted: number): boolean {
  return body === `${`${name}\n`.repeat(1000)}${name} ${posted}`;
}

test('thirty switches under load: no failed request, no mixed answer, old ones killed once idle', async (t: TestContext) => {
  let current = await startVersion('v0');
  const { edge, feed, logged } = await edgeFor(t, [appRoute([current])]);
  let done = false;
  const { load, finished } = hammer(edge.port, 12, () => done);
  for (let i = 1; i <= 30; i++) {
    const target = load.answers + 20;
    while (load.answers < target) await new Promise((resolve) => setTimeout(resolve, 1));
    const next = await startVersion(`v${i}`);
    const generation = feed.set([appRoute([next])]);
    assert.equal(await edge.waitForGeneration(generation, 5000), true);
    assert.equal(await edge.onIdle(current.id, 5000), true);
    edge.closeConnections(current.id);
    current.kill();
    current = next;
  }
  await ask(edge.port, '/');
  done = true;
  await finished;
  current.kill();
  assert.deepEqual(load.failures, []);
  assert.equal(load.versions.size, 31);
  assert.ok(load.answers > 600, `${load.answers} answers`);
  assert.deepEqual(logged, []);
});

test('replicas come and go, and one dies: reads never notice', async (t: TestContext) => {
  const replicas = await Promise.all(['a', 'b', 'c'].map(startVersion));
  const { edge, feed } = await edgeFor(t, [appRoute(replicas)]);
  const failures: string[] = [];
  let done = false;
  const reader = async (): Promise<void> => {
    while (!done) {
      const answer = await ask(edge.port, '/').catch((error) => ({ status: String(error), body: '' }));
      if (answer.status !== 200) failures.push(`${answer.status} ${answer.body}`);
    }
  };
  const readers = Promise.all(Array.from({ length: 6 }, reader));
  // Its port closes while it is still in the table: new connections are refused and go to the others.
  const [gone, ...rest] = replicas as [(typeof replicas)[0], ...typeof replicas];
  feed.set([appRoute(rest)]);
  await edge.waitForGeneration(feed.generation, 5000);
  await edge.onIdle(gone.id, 5000);
  gone.kill();
  feed.set([appRoute(replicas)]);
  await edge.waitForGeneration(feed.generation, 5000);
  for (let i = 0; i < 50; i++) await ask(edge.port, '/');
  done = true;
  await readers;
  for (const replica of rest) replica.kill();
  assert.deepEqual(failures, []);
});

test('a site that turns into an app and back: every answer is one or the other', async (t: TestContext) => {
  const objects = new MemoryObjects();
  const page = `${'site\n'.repeat(1000)}site 0`;
  const site = await staticRoute(objects, { 'index.html': page });
  const app = await startVersion('app');
  const { edge, feed } = await edgeFor(t, [site], { objects });
  const seen = new Set<string>();
  let done = false;
  const reader = async (): Promise<void> => {
    while (!done) {
      const answer = await ask(edge.port, '/');
      const name = answer.body.split('\n', 1)[0]!;
      assert.equal(answer.status, 200);
      assert.equal(isWhole(answer.body, name, 0), true);
      seen.add(name);
    }
  };
  const readers = Promise.all(Array.from({ length: 4 }, reader));
  for (let i = 0; i < 40; i++) {
    feed.set([i % 2 === 0 ? appRoute([app]) : site]);
    await edge.waitForGeneration(feed.generation, 5000);
    await ask(edge.port, '/');
  }
  done = true;
  await readers;
  app.kill();
  assert.deepEqual([...seen].toSorted(), ['app', 'site']);
});

test('before the table was read the edge is starting; where nothing was ever published there is no such site', async (t) => {
  const feed = new MemoryFeed();
  feed.generation = 0;
  feed.failing = true;
  const { edge } = await edgeFor(t, [], { feed });
  const seen = async () => {
    const { status, headers } = await ask(edge.port, '/');
    return [status, headers['x-kiln-error']];
  };
  assert.deepEqual(await seen(), [503, 'STARTING']);
  feed.failing = false;
  await edge.refresh();
  assert.deepEqual(await seen(), [404, 'NO_SUCH_SITE']);
});

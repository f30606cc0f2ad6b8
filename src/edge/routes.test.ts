import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { emptyRoute, type Logged, MemoryFeed } from './fixture.ts';
import { type FollowOptions, RouteFollower, RouteTable, UNREAD } from './routes.ts';

function follower(t: TestContext, feed: MemoryFeed, options: Partial<FollowOptions> = {}) {
  const swaps: number[] = [];
  const logged: Logged[] = [];
  const following = new RouteFollower({
    feed,
    base_domain: 'localhost',
    scan_interval_ms: 60_000,
    feed_timeout_ms: 1000,
    on_swap: (table) => swaps.push(table.generation),
    log: (level, message) => logged.push({ level, message }),
    ...options,
  });
  t.after(() => following.close());
  return { following, swaps, logged };
}

test('hosts are the deployment names, then custom ones, which never take over a name', () => {
  const shop = { ...emptyRoute(), hosts: ['Shop.Example.com', 'blog.acme.localhost'] };
  const blog = emptyRoute({ slug: 'blog', deployment_id: 'dep_2' });
  const table = new RouteTable(7, [shop, blog], 'localhost');
  assert.equal(table.find('shop.acme.localhost'), shop);
  assert.equal(table.find('shop.example.com'), shop);
  assert.equal(table.find('blog.acme.localhost'), blog);
  assert.equal(table.find('acme.localhost'), undefined);
});

test('follows notifications, and acknowledges after the swap', async (t) => {
  const feed = new MemoryFeed();
  const { following, swaps } = follower(t, feed);
  feed.acknowledge = async (generation) => {
    assert.equal(following.table.generation, generation);
    feed.acknowledged.push(generation);
  };
  await following.start();
  assert.equal(following.table.generation, 1);
  const generation = feed.set([emptyRoute()]);
  assert.equal(await following.waitFor(generation, 1000), true);
  assert.notEqual(following.table.find('shop.acme.localhost'), undefined);
  await following.refresh();
  assert.deepEqual(swaps, [1, 2]);
  assert.deepEqual(feed.acknowledged, [1, 2]);
});

test('finds a change by scanning when the notification is lost', async (t) => {
  const feed = new MemoryFeed();
  feed.notifies = false;
  const { following } = follower(t, feed, { scan_interval_ms: 20 });
  await following.start();
  const { promise, resolve } = Promise.withResolvers<void>();
  feed.acknowledge = async () => resolve();
  feed.set([]);
  await promise;
  assert.equal(following.table.generation, feed.generation);
});

test('a burst of changes costs few reads, and every caller sees at least its own', async (t) => {
  const feed = new MemoryFeed();
  const { following } = follower(t, feed);
  await following.start();
  const before = feed.reads;
  const seen = await Promise.all(
    Array.from({ length: 100 }, () => {
      const generation = feed.set([]);
      return following.refresh().then((served) => served >= generation);
    }),
  );
  assert.ok(seen.every(Boolean));
  assert.ok(feed.reads - before <= 3, `${feed.reads - before} reads`);
  assert.equal(feed.acknowledged.at(-1), feed.generation);
});

test('keeps the old table while the feed fails, says so once, and catches up', async (t) => {
  const feed = new MemoryFeed();
  feed.rows = [emptyRoute()];
  const { following, logged } = follower(t, feed, { scan_interval_ms: 10 });
  await following.start();
  feed.failing = true;
  feed.set([]);
  for (let i = 0; i < 3; i++) await assert.rejects(following.refresh(), /the database is away/);
  assert.equal(await following.waitFor(feed.generation, 30), false);
  assert.notEqual(following.table.find('shop.acme.localhost'), undefined);
  assert.equal(logged.filter((line) => line.level === 'warn').length, 1);
  feed.failing = false;
  assert.equal(await following.waitFor(feed.generation, 1000), true);
  assert.equal(following.table.find('shop.acme.localhost'), undefined);
});

test('a feed that fails at the start is followed as soon as it works', async (t) => {
  const feed = new MemoryFeed();
  feed.failing = true;
  const { following } = follower(t, feed, { scan_interval_ms: 10 });
  await following.start();
  assert.equal(following.table.generation, UNREAD);
  feed.failing = false;
  assert.equal(await following.waitFor(1, 1000), true);
});

test('a swap whose acknowledgement failed is acknowledged later', async (t) => {
  const feed = new MemoryFeed();
  const { following } = follower(t, feed);
  await following.start();
  const acknowledge = feed.acknowledge.bind(feed);
  feed.acknowledge = () => Promise.reject(new Error('away'));
  feed.notifies = false;
  feed.set([]);
  await assert.rejects(following.refresh(), /away/);
  assert.equal(following.table.generation, 2);
  feed.acknowledge = acknowledge;
  await following.refresh();
  assert.deepEqual(feed.acknowledged, [1, 2]);
});

test('a feed that hangs does not block for ever, and an older table is ignored', async (t) => {
  const feed = new MemoryFeed();
  const { following } = follower(t, feed, { feed_timeout_ms: 30 });
  await following.start();
  const read = feed.read.bind(feed);
  feed.read = () => new Promise(() => {});
  await assert.rejects(following.refresh(), /no answer within 30 ms/);
  feed.read = read;
  feed.generation = 0;
  assert.equal(await following.refresh(), 1);
});

import assert from 'node:assert/strict';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { collectCaches, openCache } from './cache.ts';

const KB = 1024;

describe('build cache', () => {
  let root: string;
  let count = 0;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'kiln-cache-'));
  });
  after(() => rm(root, { recursive: true, force: true }));

  const newDir = () => join(root, `dpl_${count++}`);
  async function put(dir: string, path: string, bytes: number, age_s = 0): Promise<void> {
    const file = join(dir, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, Buffer.alloc(bytes, 1));
    const at = Date.now() / 1000 - age_s;
    for (const one of [file, dirname(file)]) await utimes(one, at, at);
  }

  it('keeps what a build leaves, and says how long builds took without and with it', async () => {
    const dir = newDir();
    const first = await openCache({ dir, max_bytes: 1000 * KB });
    assert.deepEqual([first.before_bytes, first.line], [0, 'cache: empty']);
    await put(first.spec.dir, 'npm/a', 200 * KB);
    assert.deepEqual((await first.close(45_000)).lines, ['cache: 0.2 MB kept']);
    const second = await openCache({ dir, max_bytes: 1000 * KB });
    assert.equal(second.line, 'cache: 0.2 MB from earlier builds');
    const report = await second.close(12_340);
    assert.deepEqual(report.lines, [
      'cache: 0.2 MB kept; the commands took 12.3 s (45.0 s with an empty cache, 45.0 s the last time)',
    ]);
    // A build that failed says nothing about time.
    assert.deepEqual((await (await openCache({ dir, max_bytes: 1000 * KB })).close(null)).lines, []);
    const third = await (await openCache({ dir, max_bytes: 1000 * KB })).close(11_000);
    assert.match(third.lines[0]!, /took 11\.0 s \(45\.0 s with an empty cache, 12\.3 s the last time\)/);
  });

  it('evicts the longest unused tool first, as a whole, and read-only files too', async () => {
    const cache = await openCache({ dir: newDir(), max_bytes: 300 * KB });
    const { dir } = cache.spec;
    await put(dir, 'go/x', 200 * KB, 3000);
    await chmod(join(dir, 'go'), 0o500);
    await put(dir, 'xdg/pip/y', 200 * KB, 2000);
    await put(dir, 'npm/z', 200 * KB, 10);
    const report = await cache.close(1);
    assert.ok(report.bytes <= 300 * KB, `${report.bytes}`);
    assert.deepEqual(await readdir(dir), ['npm', 'xdg']);
    assert.deepEqual(await readdir(join(dir, 'xdg')), []);
  });

  it('holds its limit when one tool alone is larger, or files lie about', async () => {
    const cache = await openCache({ dir: newDir(), max_bytes: 100 * KB });
    await put(cache.spec.dir, 'npm/a', 300 * KB);
    await put(cache.spec.dir, 'loose', 300 * KB);
    assert.equal((await cache.close(1)).bytes, 0);
  });

  it('is emptied while a build runs when it grows far beyond', async () => {
    const cache = await openCache({ dir: newDir(), max_bytes: 100 * KB });
    await put(cache.spec.dir, 'npm/a', 400 * KB);
    for (let tries = 0; (await readdir(cache.spec.dir)).length > 0 && tries < 100; tries++) await sleep(100);
    await put(cache.spec.dir, 'npm/b', 10 * KB);
    const report = await cache.close(1);
    assert.equal(report.emptied, 1);
    assert.match(report.lines[0]!, /emptied, it was over 0\.1 MB/);
    assert.deepEqual(await readdir(join(cache.spec.dir, 'npm')), ['b']);
    assert.deepEqual((await readdir(dirname(cache.spec.dir))).sort(), ['cache.json', 'content']);
  });

  it('keeps no settings, programs or credentials of tools', async () => {
    const cache = await openCache({ dir: newDir(), max_bytes: 1000 * KB });
    const { dir } = cache.spec;
    for (const path of ['cargo/registry/a', 'cargo/config.toml', 'cargo/credentials.toml', 'cargo/bin/evil'])
      await put(dir, path, 10);
    for (const path of [
      'gradle/init.d/evil',
      'gradle/gradle.properties',
      'gradle/caches/a',
      'hex/hex.config',
    ])
      await put(dir, path, 10);
    await cache.close(1);
    assert.deepEqual(await readdir(join(dir, 'cargo')), ['registry']);
    assert.deepEqual(await readdir(join(dir, 'gradle')), ['caches']);
    assert.deepEqual(await readdir(join(dir, 'hex')), []);
  });

  it('never follows a link that a build left', async () => {
    const outside = join(root, 'outside');
    await put(outside, 'kept/precious', 400 * KB);
    const cache = await openCache({ dir: newDir(), max_bytes: 100 * KB });
    for (const name of ['cargo', 'npm', 'xdg', 'hex']) await symlink(outside, join(cache.spec.dir, name));
    await put(cache.spec.dir, 'go/a', 300 * KB);
    await cache.close(1);
    assert.equal((await stat(join(outside, 'kept/precious'))).size, 400 * KB);
    assert.deepEqual(await readdir(outside), ['kept']);
  });

  it('collects caches of deployments that are gone, and the longest unused over the limit', async () => {
    const dir = join(root, 'all');
    for (const [id, used_at] of [
      ['old', 1],
      ['mid', 2],
      ['new', 3],
      ['gone', 4],
      ['busy', 0],
    ] as const) {
      await put(join(dir, id), 'content/npm/a', 100 * KB);
      await writeFile(join(dir, id, 'cache.json'), JSON.stringify({ used_at }));
    }
    const removed = await collectCaches({
      ...{ dir, total_max_bytes: 250 * KB },
      ...{ living: new Set(['old', 'mid', 'new', 'busy']), busy: new Set(['busy']) },
    });
    assert.deepEqual(removed, ['gone', 'old']);
    assert.deepEqual((await readdir(dir)).sort(), ['busy', 'mid', 'new']);
    assert.deepEqual(JSON.parse(await readFile(join(dir, 'mid/cache.json'), 'utf8')), { used_at: 2 });
    assert.deepEqual(
      await collectCaches({
        dir: join(root, 'none'),
        total_max_bytes: 0,
        living: new Set(),
        busy: new Set(),
      }),
      [],
    );
  });
});

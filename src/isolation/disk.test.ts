import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { countPause, watchDisk } from './disk.ts';

const MIB = 1024 * 1024;

test('an app is counted seldom, but one that fills the disk is found at once', {
  timeout: 30_000,
}, async () => {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-disk-'));
  const { promise: full, resolve } = Promise.withResolvers<void>();
  const count_every_ms = countPause('instance');
  const watch = await watchDisk({
    dirs: [dir],
    limit_bytes: 8 * MIB,
    count_every_ms,
    pids: () => [],
    on_full: resolve,
  });
  const started = performance.now();
  try {
    await writeFile(join(dir, 'big'), Buffer.alloc(96 * MIB, 'x'));
    await full;
    assert.ok(performance.now() - started < count_every_ms / 2, 'not only when the next count was due');
  } finally {
    watch.stop();
    await rm(dir, { recursive: true });
  }
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Collector } from './collector.ts';
import type { EngineContext } from './context.ts';

test('collects soon after the start and again, says what it did and what went wrong, and ends when told', async () => {
  const said: [level: string, message: string][] = [];
  const passes: (() => Promise<void>)[] = [
    async () => {
      throw new Error('the database is away');
    },
    async () => undefined,
  ];
  const stopped = Promise.withResolvers<void>();
  const last = Promise.withResolvers<void>();
  const collector = new Collector(
    { say: (level: string, message: string) => said.push([level, message]) } as unknown as EngineContext,
    async (signal) => {
      const pass = passes.shift();
      if (pass) await pass();
      else {
        last.resolve();
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        stopped.resolve();
        signal.throwIfAborted();
      }
      return { dry_run: false, removed: [], kept: [], removed_bytes: 0 };
    },
    { first_ms: 1, every_ms: 1 },
  );
  const alive = setInterval(() => undefined, 1000); // the collector alone keeps no process
  try {
    collector.start();
    await last.promise;
    await collector.stop();
    await stopped.promise;
  } finally {
    clearInterval(alive);
  }
  assert.deepEqual(
    said.map(([level]) => level),
    ['error', 'info'],
  );
  assert.match(said[1]![1], /removed 0, kept 0/);
});

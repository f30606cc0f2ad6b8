/** Workspaces that change: between two snapshots, and during one. */
import assert from 'node:assert/strict';
import { renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { extractTar } from './extract.ts';
import { LIMITS, workshop } from './snapshot.fixtures.ts';
import { RACY_MS } from './snapshot-cache.ts';
import { scratch } from './tree.fixtures.ts';

/** Until every file is older than what may be racily clean; the clock of a file system cannot be set. */
async function settle(): Promise<void> {
  await pause(RACY_MS + 50);
}

describe('an unchanged workspace', () => {
  it('is recognised without reading', async () => {
    await using temporary = await scratch();
    const tree = { 'a/b': '1', c: '2', to: { link: 'c' }, dist: { dir: true as const } };
    const { root, store, snap } = await workshop(temporary.dir, tree);
    await settle();
    const { unchanged: was_unchanged, reused: was_reused, duration_ms: _, ...first } = await snap();
    const { unchanged, reused, duration_ms: __, ...second } = await snap();
    assert.deepEqual([was_unchanged, was_reused, unchanged, reused], [false, false, true, true]);
    assert.deepEqual(second, first);

    await writeFile(join(root, 'dist/left-out'), 'changes nothing');
    assert.equal((await snap()).unchanged, true);
    await store.delete(first.key);
    const third = await snap();
    assert.deepEqual([third.unchanged, third.reused, third.sha256], [false, false, first.sha256]);
  });

  it('is not mistaken for one with any kind of change', async () => {
    await using temporary = await scratch();
    const { root, snap } = await workshop(temporary.dir, { 'a/b': '1', c: '2', d: '3', to: { link: 'c' } });
    const at = (path: string) => join(root, path);
    await settle();
    let last = await snap();
    const changes: Record<string, () => unknown> = {
      'content of the same size, times put back': () => {
        const { atime, mtime } = statSync(at('c'));
        writeFileSync(at('c'), 'X');
        utimesSync(at('c'), atime, mtime);
      },
      'a new file': () => writeFile(at('new'), ''),
      'a file renamed': () => renameSync(at('new'), at('newer')),
      'a file replaced by rename': () => {
        writeFileSync(at('.kiln'), 'Y');
        renameSync(at('.kiln'), at('c'));
      },
      'an executable bit': () => chmod(at('d'), 0o755),
      'an empty folder': () => mkdir(at('folder')),
      'a link with another target': async () => {
        await rm(at('to'));
        await symlink('d', at('to'));
      },
      'a file that became a folder': async () => {
        await rm(at('newer'));
        await mkdir(at('newer'));
      },
      'a rule that leaves something out': () => writeFile(at('.kilnignore'), 'a\n'),
      'a file that went': () => rm(at('d')),
    };
    for (const [what, change] of Object.entries(changes)) {
      await change();
      const now = await snap();
      assert.equal(now.unchanged, false, what);
      assert.notEqual(now.sha256, last.sha256, what);
      last = now;
    }
  });

  it('is not trusted while a write could hide in the clock tick of the one before', async () => {
    await using temporary = await scratch();
    const { root, snap } = await workshop(temporary.dir, { a: '0' });
    let last = await snap();
    for (let i = 1; i <= 20; i++) {
      writeFileSync(join(root, 'a'), String(i % 10)); // the same size, and often the same tick
      const now = await snap();
      assert.equal(now.unchanged, false);
      assert.notEqual(now.sha256, last.sha256);
      last = now;
    }
  });

  it('is read again when the cache is broken', async () => {
    await using temporary = await scratch();
    const { cache_file, snap } = await workshop(temporary.dir, { a: '0' });
    await settle();
    const first = await snap();
    for (const broken of [
      '',
      '{',
      '[]',
      '{"format":9}',
      (await readFile(cache_file, 'utf8')).slice(0, -10),
    ]) {
      await writeFile(cache_file, broken);
      const again = await snap();
      assert.deepEqual([again.unchanged, again.sha256], [false, first.sha256], broken);
      assert.equal((await snap()).unchanged, true, broken);
    }
  });
});

describe('a workspace that changes while it is read', () => {
  it('holds each file as it was at one moment', async () => {
    await using temporary = await scratch();
    const { root, store, snap } = await workshop(temporary.dir, { 'x/state': Buffer.alloc(50_000, '0') });
    let n = 0;
    const writer = setInterval(() => {
      // Replaced whole, as editors do: any moment has one whole state.
      writeFileSync(join(root, 'x/next'), Buffer.alloc(50_000, String(n++ % 10)));
      renameSync(join(root, 'x/next'), join(root, 'x/state'));
    }, 3);
    try {
      for (let i = 0; i < 10; i++) {
        const { key } = await snap({ cache_file: null });
        const into = join(temporary.dir, `into-${i}`);
        await extractTar({ input: await store.get(key), into, limits: LIMITS });
        const state = await readFile(join(into, 'x/state'), 'latin1');
        assert.equal(state.length, 50_000);
        assert.equal(new Set(state).size, 1);
      }
    } finally {
      clearInterval(writer);
    }
  });

  it('takes files that come and go as there or absent', async () => {
    await using temporary = await scratch();
    const { root, snap } = await workshop(temporary.dir, { keep: 'x' });
    let n = 0;
    const churn = setInterval(() => {
      writeFileSync(join(root, `t${n % 7}`), 'x');
      rmSync(join(root, `t${(n + 3) % 7}`), { force: true });
      n++;
    }, 1);
    try {
      for (let i = 0; i < 15; i++) assert.ok((await snap()).files >= 1);
    } finally {
      clearInterval(churn);
    }
  });
});

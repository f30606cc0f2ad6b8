/** Workspaces that change: between two snapshots, and during one. */
import assert from 'node:assert/strict';
import { renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { extractTar } from './extract.ts';
import { keepsFolderTimes } from './quick-look.ts';
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

  it('is recognised by stat alone, with what was left out, whatever happened to the list of its files', async (t) => {
    await using temporary = await scratch();
    if (!(await keepsFolderTimes(temporary.dir)))
      return t.skip('this file system is not one that is trusted');
    const tree = { 'a/b': '1', 'nöt\nplain': '2', 'node_modules/x': '3', '.env': 'K=1' };
    const { root, cache_file, snap } = await workshop(temporary.dir, tree);
    await settle();
    const first = await snap();
    assert.deepEqual([first.left_out, first.secrets_left_out], [['node_modules/'], ['.env']]);
    const { length } = await readFile(`${cache_file}.look`);
    const second = await snap();
    assert.deepEqual(
      [second.unchanged, second.sha256, second.left_out],
      [true, first.sha256, first.left_out],
    );
    assert.deepEqual(second.secrets_left_out, ['.env']);
    // Other rules are another snapshot.
    assert.equal((await snap({ wanted: 'all' })).unchanged, false);
    for (const broken of ['', '{', `${'x'.repeat(length)}`]) {
      await writeFile(`${cache_file}.look`, broken);
      assert.equal((await snap()).sha256, first.sha256);
    }
    // A folder's own times tell that something was put in or taken out, also where the walk would not look at it.
    await settle();
    await snap();
    await writeFile(join(root, 'a/.env'), 'K=2');
    const third = await snap();
    assert.deepEqual([third.unchanged, third.secrets_left_out], [true, ['.env', 'a/.env']]);
  });

  it('is not mistaken by the stats of last time for one with any kind of change', async (t) => {
    if (!(await keepsFolderTimes(tmpdir()))) return t.skip('this file system is not one that is trusted');
    const changes: Record<string, (root: string) => unknown> = {
      'content of the same size, times put back': (root) => {
        const { atime, mtime } = statSync(join(root, 'a/b'));
        writeFileSync(join(root, 'a/b'), 'X');
        utimesSync(join(root, 'a/b'), atime, mtime);
      },
      'a new file, the times of its folder put back': (root) => {
        const { atime, mtime } = statSync(join(root, 'a'));
        writeFileSync(join(root, 'a/new'), '');
        utimesSync(join(root, 'a'), atime, mtime);
      },
      'a file renamed': (root) => renameSync(join(root, 'a/b'), join(root, 'a/c')),
      'a file that went': (root) => rmSync(join(root, 'a/b')),
      'a folder moved': (root) => renameSync(join(root, 'a'), join(root, 'z')),
      'a folder in the place of another': (root) => {
        renameSync(join(root, 'a'), join(root, '../kept'));
        renameSync(join(root, '../other'), join(root, 'a'));
      },
      'a link to a folder in its place': async (root) => {
        renameSync(join(root, 'a'), join(root, '../kept'));
        await symlink('../kept', join(root, 'a'));
      },
      'a rule that leaves something out': (root) => writeFile(join(root, '.kilnignore'), 'a\n'),
      'a rule changed in a file that leaves itself out': (root) =>
        writeFile(join(root, '.kilnignore'), '.kilnignore\na\n'),
      'an executable bit': (root) => chmod(join(root, 'top'), 0o755),
    };
    const of = async (change: (root: string) => unknown, what: string) => {
      await using temporary = await scratch();
      const hides = what.includes('leaves itself out');
      const tree = { 'a/b': '1', top: '2', ...(hides ? { '.kilnignore': '.kilnignore\n' } : {}) };
      const { root, snap, cache_file } = await workshop(temporary.dir, tree);
      await mkdir(join(root, '../other'));
      await writeFile(join(root, '../other/b'), '1');
      await settle();
      const first = await snap();
      assert.ok((await stat(`${cache_file}.look`)).size > 0, what);
      await change(root);
      const now = await snap();
      // The folder in the place of another holds the same: read again, and found to be equal.
      const equal = what.includes('in the place of another');
      assert.deepEqual([now.unchanged, now.sha256 === first.sha256], [false, equal], what);
    };
    await Promise.all(Object.entries(changes).map(([what, change]) => of(change, what)));
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
      await writeFile(`${cache_file}.look`, broken);
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

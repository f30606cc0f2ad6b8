/** Files that change under the reader's hands, with the change made at the worst moment: between read and check. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { afterEach, describe, it, mock } from 'node:test';
import { hashPaths } from './hash.ts';
import { statPaths } from './stat.ts';
import { writeTarFile } from './tar-file.ts';
import { orderEntries } from './tar-plan.ts';
import { writeWhole } from './tar-writer.fixtures.ts';
import { SLAB_BYTES, type TarTask } from './tar-writer.ts';
import { plant, scratch } from './tree.fixtures.ts';
import { KIND, ROW } from './tree.ts';

function taskFor(root: string, paths: string[]): TarTask {
  const task = {
    root,
    prefix: '',
    paths,
    rows: statPaths(root, paths),
    copies: new Map(),
    extra: [],
    want_index: true,
    max_bytes: 1e9,
  };
  return { ...task, entries: orderEntries(task) };
}

function write(task: TarTask) {
  const { tar, ...summary } = writeWhole(task);
  const content = (name: string) => {
    const found = summary.index.find((entry) => entry.name === name)!;
    return tar.toString('latin1', found.offset, found.offset + found.size);
  };
  return { ...summary, content };
}

/** After each read of the file system, `meddle` is called; it stands for another process. */
function afterEachRead(meddle: () => void): void {
  const real = fs.readSync;
  mock.method(fs, 'readSync', (...args: unknown[]) => {
    const got = Reflect.apply(real, fs, args);
    meddle();
    return got;
  });
  syncBuiltinESMExports();
}

describe('writeTar', () => {
  afterEach(() => {
    mock.restoreAll();
    syncBuiltinESMExports();
  });

  it('reads a file again that changed while it was read', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: 'old content', b: 'b' });
    const task = taskFor(root, ['a', 'b']);
    let changes = 0;
    afterEachRead(() => {
      if (changes++ < 2) fs.appendFileSync(join(root, 'a'), ' and more');
    });
    const written = write(task);
    assert.equal(written.content('a'), 'old content and more and more');
    assert.equal(written.content('b'), 'b');
  });

  it('sees a change that keeps the size and puts the times back', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: 'old' });
    const task = taskFor(root, ['a']);
    let changed = false;
    afterEachRead(() => {
      if (changed) return;
      changed = true;
      const { atime, mtime } = fs.statSync(join(root, 'a'));
      fs.writeFileSync(join(root, 'a'), 'new');
      fs.utimesSync(join(root, 'a'), atime, mtime);
    });
    assert.equal(write(task).content('a'), 'new');
  });

  it('gives up on a file that never settles, naming it', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { 'logs/busy.log': 'x' });
    const task = taskFor(root, ['logs', 'logs/busy.log']);
    let reads = 0;
    afterEachRead(() => {
      reads++;
      fs.appendFileSync(join(root, 'logs/busy.log'), 'y');
    });
    assert.throws(() => write(task), {
      name: 'TreeUnreadable',
      path: 'logs/busy.log',
      message: /kept changing/,
    });
    assert.ok(reads >= 5);
  });

  it('names what it cannot read', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: 'x' });
    const task = taskFor(root, ['a']);
    mock.method(fs, 'openSync', () => {
      throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    });
    syncBuiltinESMExports();
    assert.throws(() => write(task), {
      name: 'TreeUnreadable',
      path: 'a',
      message: /cannot be read \(EIO\)/,
    });
  });

  it('is not led out of the root by a folder that has become a link since the walk', async (t) => {
    if (!fs.existsSync('/proc/self/fd')) return t.skip('no /proc: folders cannot be pinned here');
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), {
      a: { link: '../outside' },
      'b/c': { link: '..' },
    });
    await plant(join(temporary.dir, 'outside'), { secret: 'of the host' });
    // The rows are those of the file outside: the look went through the link as well.
    for (const path of ['a/secret', 'b/c/a/secret']) {
      const task = taskFor(root, [path]);
      assert.equal(task.rows[ROW.kind], KIND.file);
      assert.throws(() => write(task), { name: 'TreeChanged' });
      assert.deepEqual(hashPaths(root, [path], task.rows).sha256, [null]);
    }
  });

  it('takes as absent what has gone, and asks to start again when something else is in its place', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: 'a', 'b/c': 'c', d: 'd', l: { link: 'd' } });
    const task = taskFor(root, ['a', 'b', 'b/c', 'd', 'l']);
    fs.rmSync(join(root, 'a'));
    fs.rmSync(join(root, 'b/c'));
    fs.rmSync(join(root, 'l'));
    const written = write(structuredClone(task));
    assert.deepEqual(
      written.index.map((entry) => entry.name),
      ['d'],
    ); // prettier-ignore
    fs.rmSync(join(root, 'd'));
    fs.symlinkSync('/etc/passwd', join(root, 'd'));
    assert.throws(() => write(structuredClone(task)), { name: 'TreeChanged', path: 'd' });
  });
});

describe('writeTarFile', () => {
  it('starts again when a large file changed, and gives up in the end', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { large: Buffer.alloc(SLAB_BYTES + 1, 'x') });
    let attempts = 0;
    const prepareWithStale = (stale: number) => async () => {
      const task = taskFor(root, ['large']);
      if (attempts++ < stale) fs.appendFileSync(join(root, 'large'), 'y'); // after the look, before the read
      return task;
    };
    const path = join(temporary.dir, 'out.tar');
    const written = await writeTarFile({ prepare: prepareWithStale(2), path, compress: 'none' });
    assert.equal(attempts, 3);
    assert.equal(written.file_bytes, SLAB_BYTES + 3);
    assert.equal(fs.statSync(path).size, written.size_bytes);

    fs.rmSync(path);
    attempts = 0;
    const never = writeTarFile({ prepare: prepareWithStale(99), path, compress: 'none' });
    await assert.rejects(never, { name: 'TreeUnreadable', path: 'large', message: /kept changing/ });
    assert.equal(fs.existsSync(path), false);
  });
});

import assert from 'node:assert/strict';
import {
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type Answers, openAnswers } from './answers.ts';

/** What was written a moment ago counts as settled. */
const LATER = () => Date.now() + 60_000;

describe('answers of programs', () => {
  let top: string;
  let dir: string;
  let memory: string;
  let n = 0;
  before(async () => {
    top = await realpath(await mkdtemp(join(tmpdir(), 'kiln-answers-')));
  });
  after(() => rm(top, { recursive: true }));
  beforeEach(async () => {
    dir = join(top, String(n++));
    memory = join(dir, 'cache/programs.json');
    await mkdir(dir);
  });

  /** A program that says `text` and how often it was run. */
  async function program(name: string, text: string): Promise<string> {
    const file = join(dir, name);
    await writeFile(file, `#!/bin/sh\necho run >> ${dir}/runs\necho '${text}'\n`);
    await chmod(file, 0o755);
    return file;
  }
  const runs = async () => (await readFile(join(dir, 'runs'), 'utf8').catch(() => '')).split('\n').length - 1;

  /** As in one life of an engine: asks, and remembers by these files. */
  async function life(file: string, decided_by = [file], now = LATER): Promise<string> {
    const answers = openAnswers(memory, now);
    const said = await answers.ask({ file, args: [], search: '/usr/bin:/bin' });
    if (decided_by.length > 0) await said.decidedBy(decided_by);
    await answers.keep();
    return said.lines.join();
  }

  it('are remembered from one start to the next, and asked once in each', async () => {
    const tool = await program('tool', '1.0');
    assert.deepEqual([await life(tool), await life(tool), await life(tool)], ['1.0', '1.0', '1.0']);
    assert.equal(await runs(), 1);
    assert.equal((await stat(memory)).mode & 0o777, 0o600);
    const unremembered: Answers = openAnswers(null);
    const ask = () => unremembered.ask({ file: tool, args: [], search: '/usr/bin:/bin' });
    await Promise.all([ask(), ask()]);
    assert.equal(await runs(), 2);
  });

  it('are asked again after an upgrade: in place, by another file, by another link, with all times set back', async () => {
    const tool = await program('tool', '1.0');
    await life(tool);
    const { atime, mtime } = await stat(tool);
    await program('tool', '1.1');
    await utimes(tool, atime, mtime);
    assert.equal(await life(tool), '1.1', 'the same size and modification time');
    await rename(await program('new', '1.2'), tool);
    assert.equal(await life(tool), '1.2');

    const link = join(dir, 'link');
    await symlink(tool, link);
    assert.equal(await life(link), '1.2');
    await rm(link);
    await symlink(await program('other', '2.0'), link);
    assert.equal(await life(link), '2.0');
  });

  it('are asked again when another file that decides changes, comes or goes', async () => {
    const tool = await program('tool', '1.0');
    const settings = join(dir, 'settings');
    const asked = async () => {
      const before = await runs();
      await life(tool, [tool, settings]);
      return (await runs()) - before;
    };
    assert.deepEqual([await asked(), await asked()], [1, 0]);
    await writeFile(settings, 'a');
    assert.deepEqual([await asked(), await asked()], [1, 0]);
    await writeFile(settings, 'b');
    assert.deepEqual([await asked(), await asked()], [1, 0]);
    await rm(settings);
    assert.deepEqual([await asked(), await asked()], [1, 0]);
  });

  it('are not remembered when nobody knows what decides them, or when that has just changed', async () => {
    const tool = await program('tool', '1.0');
    await life(tool, []);
    await life(tool, []);
    assert.equal(await runs(), 2);
    await life(tool, [tool], Date.now);
    await life(tool, [tool], Date.now);
    assert.equal(await runs(), 4);
  });

  it('of programs that fail are errors every time', async () => {
    const tool = await program('tool', '1.0');
    await writeFile(tool, '#!/bin/sh\nexit 1\n');
    await assert.rejects(life(tool));
    await assert.rejects(life(tool));
  });

  it('in a broken file are none, and the file is made anew', async () => {
    const tool = await program('tool', '1.0');
    await life(tool);
    const good = JSON.parse(await readFile(memory, 'utf8'));
    const [key, entry] = Object.entries<object>(good.answers)[0]!;
    const broken = [
      '',
      '{"format":1,"answers":',
      'null',
      '[]',
      JSON.stringify({ ...good, format: 0 }),
      JSON.stringify({ format: 1, answers: null }),
      JSON.stringify({ format: 1, answers: { [key]: null } }),
      JSON.stringify({ format: 1, answers: { [key]: 'x' } }),
      JSON.stringify({ format: 1, answers: { [key]: { ...entry, lines: '1.0' } } }),
      JSON.stringify({ format: 1, answers: { [key]: { ...entry, lines: [1] } } }),
      JSON.stringify({ format: 1, answers: { [key]: { ...entry, decided_by: null } } }),
      JSON.stringify({ format: 1, answers: { [key]: { lines: ['1.0'] } } }),
    ];
    for (const text of broken) {
      await writeFile(memory, text);
      const before = await runs();
      assert.deepEqual([await life(tool), (await runs()) - before], ['1.0', 1], text);
      assert.deepEqual(JSON.parse(await readFile(memory, 'utf8')), good, text);
    }
  });

  it('that nobody asks for any more are forgotten; a folder that cannot be written is no error', async () => {
    const [one, two] = [await program('one', '1'), await program('two', '2')];
    await life(one);
    await life(two);
    assert.equal(Object.keys(JSON.parse(await readFile(memory, 'utf8')).answers).length, 1);
    await rm(dirname(memory), { recursive: true });
    await writeFile(dirname(memory), 'a file where the folder should be');
    assert.equal(await life(one), '1');
  });
});

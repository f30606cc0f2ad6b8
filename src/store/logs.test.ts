import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { followLog, type LogOptions, openLog, readLog } from './logs.ts';

const PLAIN: LogOptions = { max_bytes: 1 << 20, secrets: [], on_full: 'stop' };

describe('logs', () => {
  let dir: string;
  let count = 0;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kiln-logs-'));
  });
  after(() => rm(dir, { recursive: true }));
  const newPath = () => join(dir, 'sub', `log-${count++}.jsonl`);
  const texts = async (path: string, o?: Parameters<typeof readLog>[1]) =>
    (await readLog(path, o)).lines.map((line) => line.l);

  it('splits chunks into lines per stream and keeps the last unended one', async () => {
    const path = newPath();
    const log = openLog(path, PLAIN);
    log.write('stdout', Buffer.from('one\ntw'));
    log.write('stderr', Buffer.from('error\r\n'));
    log.write('stdout', Buffer.from('o\n\nlast ü'.slice(0, -1)));
    log.write('stdout', Buffer.from('ü').subarray(0, 1));
    log.write('stdout', Buffer.from('ü').subarray(1));
    log.note('from the engine');
    assert.deepEqual(log.tail(2), ['', 'from the engine']);
    await log.close();
    const { lines } = await readLog(path);
    assert.deepEqual(
      lines.map((line) => [line.s, line.l]),
      [
        ['stdout', 'one'],
        ['stderr', 'error'],
        ['stdout', 'two'],
        ['stdout', ''],
        ['kiln', 'from the engine'],
        ['stdout', 'last ü'],
      ],
    );
    assert.ok(lines.every((line) => !Number.isNaN(Date.parse(line.t))));
    assert.equal(log.bytes, (await stat(path)).size);
  });

  it('redacts secrets by value, also across chunks and in notes and tail', async () => {
    const path = newPath();
    const log = openLog(path, { ...PLAIN, secrets: ['s3cr3t-value'] });
    log.write('stdout', Buffer.from('key s3cr3t'));
    log.write('stdout', Buffer.from('-value end\n'));
    log.note('uses s3cr3t-value');
    assert.deepEqual(log.tail(9), ['key [redacted] end', 'uses [redacted]']);
    await log.close();
    assert.ok(!(await readFile(path, 'utf8')).includes('s3cr3t-value'));
  });

  it('cuts long lines and does not collect endless ones', async () => {
    const path = newPath();
    const log = openLog(path, PLAIN);
    for (let n = 0; n < 100; n++) log.write('stdout', Buffer.alloc(10_000, 'x'));
    log.write('stdout', Buffer.from('\nnext\n'));
    await log.close();
    const [long, next] = await texts(path);
    assert.equal(long, `${'x'.repeat(8192)} …[cut]`);
    assert.equal(next, 'next');
  });

  it('reads from a position, the tail, and both of a missing log', async () => {
    const path = newPath();
    assert.deepEqual(await readLog(path, { tail: 5 }), { lines: [], next: 0 });
    const log = openLog(path, PLAIN);
    for (let n = 0; n < 3000; n++) log.write('stdout', Buffer.from(`line ${n}\n`));
    await log.close();
    assert.deepEqual(await texts(path, { tail: 2 }), ['line 2998', 'line 2999']);
    assert.equal((await texts(path, { tail: 2500 })).length, 2500);
    assert.equal((await texts(path, { tail: 9999 })).length, 3000);
    assert.deepEqual(await texts(path, { tail: 0 }), []);
    const { next } = await readLog(path);
    assert.deepEqual(await readLog(path, { after: next }), { lines: [], next });
    const again = openLog(path, PLAIN);
    again.note('more');
    await again.close();
    assert.deepEqual(await texts(path, { after: next }), ['more']);
  });

  it('stops at its limit with one line that says so', async () => {
    const path = newPath();
    const log = openLog(path, { ...PLAIN, max_bytes: 2000 });
    for (let n = 0; n < 500; n++) log.write('stdout', Buffer.from(`line ${n}\n`));
    await log.close();
    const lines = await texts(path);
    assert.match(lines.at(-1)!, /limit of 2000 bytes/);
    assert.ok((await stat(path)).size < 2300);
    assert.equal(lines.filter((line) => line.includes('limit')).length, 1);
    const before = (await stat(path)).size;
    const again = openLog(path, { ...PLAIN, max_bytes: 2000 });
    again.note('at once');
    assert.equal(again.bytes > 0, true);
    await again.close();
    assert.ok(again.bytes > before, 'what an earlier writer left counts');
  });

  it('rotates, keeps positions, and never grows past its limit', async () => {
    const path = newPath();
    const o: LogOptions = { ...PLAIN, max_bytes: 8000, on_full: 'rotate' };
    let next = 0;
    const seen: string[] = [];
    for (let round = 0; round < 40; round++) {
      // A new writer now and then: positions survive a restart.
      const log = openLog(path, o);
      for (let n = 0; n < 20; n++) log.write('stdout', Buffer.from(`line ${round * 20 + n}\n`));
      await log.close();
      const read = await readLog(path, { after: next });
      next = read.next;
      seen.push(...read.lines.map((line) => line.l));
      const sizes = await Promise.all(
        [path, `${path}.1`].map((file) => stat(file).catch(() => ({ size: 0 }))),
      );
      assert.ok(sizes[0]!.size + sizes[1]!.size <= 8000);
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 800 }, (_, n) => `line ${n}`),
    );
    assert.equal((await texts(path, { tail: 1 }))[0], 'line 799');
    const kept = await texts(path, { after: 0 });
    assert.ok(kept.length >= 40 && kept.at(-1) === 'line 799');
  });

  it('goes on after a line that a crash cut off', async () => {
    const path = newPath();
    await openLog(path, PLAIN).close();
    await writeFile(path, '{"t":"2026-01-01T00:00:00Z","s":"stdout","l":"whole"}\n{"t":"2026');
    assert.deepEqual(await texts(path), ['whole']);
    const log = openLog(path, PLAIN);
    log.note('after');
    await log.close();
    assert.deepEqual(await texts(path), ['whole', 'after']);
  });

  it('follows a log from before it exists, through rotation, to its end', async () => {
    const path = newPath();
    let finished = false;
    const followed: string[] = [];
    const done = (async () => {
      const o = { signal: new AbortController().signal, finished: () => finished };
      for await (const line of followLog(path, o)) followed.push(line.l);
    })();
    const log = openLog(path, { ...PLAIN, max_bytes: 100_000, on_full: 'rotate' });
    for (let n = 0; n < 1500; n++) {
      log.write('stdout', Buffer.from(`line ${n}\n`));
      if (n % 250 === 249) while (followed.length <= n) await new Promise((go) => setTimeout(go, 5));
    }
    await log.close();
    finished = true;
    await done;
    assert.deepEqual(
      followed,
      Array.from({ length: 1500 }, (_, n) => `line ${n}`),
    );
  });

  it('ends following when it is aborted', async () => {
    const abort = new AbortController();
    const lines = followLog(newPath(), { signal: abort.signal, finished: () => false });
    const next = lines.next();
    abort.abort();
    assert.deepEqual(await next, { value: undefined, done: true });
  });

  it('swallows disk errors after one report', async () => {
    const file = join(dir, 'not-a-folder');
    await writeFile(file, '');
    const errors: Error[] = [];
    const log = openLog(join(file, 'log.jsonl'), { ...PLAIN, on_error: (error) => errors.push(error) });
    log.write('stdout', Buffer.from('a\nb\n'));
    await log.close();
    log.write('stdout', Buffer.from('c\n'));
    assert.deepEqual(log.tail(9), ['a', 'b', 'c']);
    assert.equal(errors.length, 1);
  });

  const fullDisk = async (path: string) => {
    await mkdir(dirname(path), { recursive: true });
    await symlink('/dev/full', path);
  };
  const skip = existsSync('/dev/full') ? false : 'there is no /dev/full here to be a full disk';

  it('goes on when there is room again, and says what is missing', { skip }, async () => {
    const path = newPath();
    const errors: Error[] = [];
    const errorCount = async (count: number) => {
      while (errors.length < count) await new Promise((go) => setTimeout(go, 5));
    };
    await fullDisk(path);
    const log = openLog(path, { ...PLAIN, on_error: (error) => errors.push(error) });
    log.note('lost');
    log.note('lost too');
    await errorCount(1);
    await rm(path);
    log.note('first');
    while (!existsSync(path) || !(await texts(path)).includes('first')) {
      log.note('waiting');
      await new Promise((go) => setTimeout(go, 5));
    }
    await log.close();
    const lines = await texts(path);
    assert.match(lines[0]!, /^up to \d+ lines are missing here/);
    assert.equal(lines[1], 'first');
    assert.equal(errors.length, 1);
    assert.match(String(errors[0]), /ENOSPC/);
  });

  it('says at its end what is missing, when there is room by then', { skip }, async () => {
    const path = newPath();
    const errors: Error[] = [];
    await fullDisk(path);
    const log = openLog(path, { ...PLAIN, on_error: (error) => errors.push(error) });
    log.note('lost');
    while (errors.length === 0) await new Promise((go) => setTimeout(go, 5));
    await rm(path);
    await log.close();
    assert.match((await texts(path))[0]!, /^up to 1 lines? (is|are) missing here/);
  });

  it('keeps positions when a disk was full in the middle of a rotation', async () => {
    const path = newPath();
    const o: LogOptions = { ...PLAIN, max_bytes: 4000, on_full: 'rotate' };
    const log = openLog(path, o);
    for (let n = 0; n < 100; n++) log.note(`line ${n}`);
    await log.close();
    const { next } = await readLog(path);
    await rename(path, `${path}.1`);
    await writeFile(path, '{"at"');
    const again = openLog(path, o);
    again.note('after');
    await again.close();
    assert.deepEqual(await texts(path, { after: next }), ['after']);
  });
});

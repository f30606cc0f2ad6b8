import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { formatAge, formatBytes, formatDuration, Output, plainText } from './output.ts';
import { Progress } from './progress.ts';

function terminal(o: { isTTY: boolean; json?: boolean; columns?: number }) {
  const out = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    isTTY: o.isTTY,
    columns: o.columns ?? 60,
    write: (text: string) => {
      out[name] += text;
    },
  });
  const output = new Output({
    json: o.json ?? false,
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    no_colour: false,
  });
  return { out, output, progress: new Progress(output) };
}

test('on a terminal: a spinner line with the last log line, cut to the width and harmless', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { out, progress } = terminal({ isTTY: true, columns: 50 });
  progress.begin('build');
  progress.detail(`\u001b[31mcompiling\u001b[0m\u0007 ${'x'.repeat(200)}`);
  t.mock.timers.tick(100);
  const line = stripVTControlCharacters(out.stderr.split('\r').at(-1)!);
  assert.match(line, /^. build +\d+ ms {2}compiling x+$/);
  assert.ok(line.length < 50);
  assert.ok(!out.stderr.includes('\u0007'));
  progress.end('build', { ok: true, duration_ms: 1234 });
  assert.match(stripVTControlCharacters(out.stderr), /✔ build +1\.2 s\n$/);
  const before = out.stderr;
  progress.stop();
  t.mock.timers.tick(1000);
  assert.equal(out.stderr.replace(before, '').includes('build'), false, 'a stopped spinner draws nothing');
});

test('not on a terminal: plain lines, and a sign of life during a long stage', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { out, progress } = terminal({ isTTY: false });
  progress.begin('build');
  progress.detail('step 3 of 9');
  progress.detail(' ');
  t.mock.timers.tick(10_000);
  progress.end('build', { ok: false, duration_ms: 20_000 });
  progress.stop();
  assert.match(out.stderr, /^ {2}build .* step 3 of 9\n✖ build +20\.0 s\n$/);
  assert.ok(!out.stderr.includes('\u001b'));
});

test('with --json: events on stdout, nothing on stderr', () => {
  const { out, progress } = terminal({ isTTY: true, json: true });
  progress.begin('plan');
  progress.end('plan', { ok: true, duration_ms: 3 });
  progress.stop();
  assert.equal(out.stderr, '');
  assert.deepEqual(
    out.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [
      { event: 'stage', stage: 'plan', state: 'running' },
      { event: 'stage', stage: 'plan', state: 'done', duration_ms: 3 },
    ],
  );
});

test('numbers for people', () => {
  assert.deepEqual([0, 999, 1500, 25_000_000, 3e12].map(formatBytes), [
    '0 B',
    '999 B',
    '1.5 kB',
    '25 MB',
    '3.0 TB',
  ]);
  assert.deepEqual([3, 1500, 119_600].map(formatDuration), ['3 ms', '1.5 s', '2 min 0 s']);
  const now = Date.parse('2026-01-10T00:00:00Z');
  assert.equal(formatAge('2026-01-09T23:58:00Z', now), '2 min ago');
  assert.equal(formatAge('2026-01-01T00:00:00Z', now), '9 days ago');
  assert.equal(plainText('a\u001b[2Jb\r\nc\td'), 'abc\td');
});

test('what others wrote is cleaned wherever it is shown, and our own paint stays', () => {
  const { out, output } = terminal({ isTTY: true });
  const hostile = 'a\u001b]0;title\u0007b\u001b[2Jc\u001b[31md\re\u009b2Jf';
  output.line(`${output.paint('green', hostile)}${hostile}`);
  assert.equal(out.stdout, '\u001b[32mabcdef\u001b[39mabcdef\n');
  output.note(`one\n${output.paint('dim', 'two', output.stderr)}\t${hostile}`);
  assert.equal(out.stderr, 'one\n\u001b[2mtwo\u001b[22m\tabcdef\n');
  out.stdout = '';
  output.fields([['name', hostile]]);
  output.table(['A'], [[hostile]]);
  output.warn(hostile);
  for (const sign of ['\u001b[2J', '\u001b]', '\u0007', '\r', '\u009b'])
    assert.ok(!(out.stdout + out.stderr).includes(sign), JSON.stringify(sign));
  const { out: plain, output: piped } = terminal({ isTTY: false });
  piped.line(`${piped.paint('green', hostile)}\nx`);
  assert.equal(plain.stdout, 'abcdef\nx\n');
});

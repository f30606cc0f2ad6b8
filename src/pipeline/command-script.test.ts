import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { commandScript, markFilter } from './command-script.ts';

function filtered(chunks: Buffer[], nonce: string): { text: string; commands: number[] } {
  const out: Buffer[] = [];
  const commands: number[] = [];
  const filter = markFilter(
    nonce,
    (chunk) => out.push(Buffer.from(chunk)),
    (index) => commands.push(index),
  );
  for (const chunk of chunks) filter.write(chunk);
  filter.end();
  return { text: Buffer.concat(out).toString(), commands };
}

test('commands run in order, each in a shell of its own, until one fails', () => {
  const script = commandScript(['echo "a \'b\'"; cd /', 'pwd; exit 7', 'echo never'], 'n1');
  const done = spawnSync('/bin/sh', ['-c', script], { encoding: 'buffer', cwd: '/tmp' });
  assert.equal(done.status, 7);
  assert.deepEqual(filtered([done.stdout], 'n1'), { text: "a 'b'\n/tmp\n", commands: [0, 1] });
});

test('any command reaches its shell as it is, and marks are found however the output is cut', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.string({ maxLength: 40 }).filter((s) => !s.includes('\0')),
        { minLength: 1, maxLength: 3 },
      ),
      fc.integer({ min: 1, max: 7 }),
      (words, size) => {
        const commands = words.map((word) => `printf '%s\\n' '${word.replaceAll("'", `'\\''`)}'`);
        const { stdout } = spawnSync('/bin/sh', ['-c', commandScript(commands, 'n2')]);
        const chunks: Buffer[] = [];
        for (let at = 0; at < stdout.length; at += size) chunks.push(stdout.subarray(at, at + size));
        const seen = filtered(chunks, 'n2');
        assert.equal(seen.text, words.map((word) => `${word}\n`).join(''));
        assert.deepEqual(seen.commands, [...words.keys()]);
      },
    ),
    { numRuns: 60 },
  );
});

test('output that only begins like a mark is passed on', () => {
  const odd = `::kiln:n3:\n::kiln:n3:12345678::\n${'x'.repeat(100)}::kil`;
  assert.deepEqual(filtered([Buffer.from(odd)], 'n3'), { text: odd, commands: [] });
  const bytes = [...Buffer.from(`${odd}::kiln:n3:4::\nend`)].map((byte) => Buffer.from([byte]));
  assert.deepEqual(filtered(bytes, 'n3'), { text: `${odd}end`, commands: [4] });
});

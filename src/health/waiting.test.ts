import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProbeAnswer } from '../domain/failure.ts';
import { tellWaiting } from './waiting.ts';

function heard() {
  const lines: string[] = [];
  const tell = tellWaiting('/up', (line) => lines.push(line));
  const at = (elapsed_ms: number, of: Partial<ProbeAnswer>, phase: 'starting' | 'grace' = 'starting') =>
    tell({
      phase,
      elapsed_ms,
      healthy: 0,
      total: 1,
      last: { at: '', status: null, error: null, location: null, duration_ms: 1, ...of },
    });
  return { lines, at };
}

test('an answer that is not healthy is told once, and again only when it is another one', () => {
  const { lines, at } = heard();
  at(500, { error: 'refused' });
  assert.deepEqual(lines, [], 'usual in the first seconds');
  at(4000, { error: 'refused' });
  at(5000, { error: 'refused' });
  at(6000, { status: 404 });
  at(7000, { status: 404 });
  at(8000, { status: 302, location: '/login' });
  at(9000, { error: 'timed out' });
  assert.deepEqual(lines, [
    'health: after 4 s, nothing listens on its port yet',
    'health: after 6 s, GET /up answers 404, and a 2xx is needed',
    'health: after 8 s, GET /up answers 302 (to /login), and a 2xx is needed',
    'health: after 9 s, GET /up is not answered (timed out)',
  ]);
});

test('good answers and the grace period need no note, and an app of many answers is not told of for ever', () => {
  const { lines, at } = heard();
  at(4000, { status: 200 });
  at(4000, { status: 500 }, 'grace');
  assert.deepEqual(lines, []);
  for (let status = 400; status < 450; status++) at(5000, { status });
  assert.equal(lines.length, 10);
});

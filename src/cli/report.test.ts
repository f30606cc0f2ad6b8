import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutRepeats } from './report.ts';

test('an access log of health checks is one line', () => {
  const probe = (port: number) => `127.0.0.1:${port} - "GET / HTTP/1.1" 404`;
  const log = ['starting', probe(40_001), probe(9), probe(123), probe(5), 'a', 'a', 'a', 'end'];
  assert.deepEqual(withoutRepeats(log), [
    'starting',
    probe(40_001),
    '… and 3 more like it',
    'a',
    'a',
    'a',
    'end',
  ]);
  assert.deepEqual(withoutRepeats([]), []);
});

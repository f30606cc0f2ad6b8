import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Plan } from '../domain/plan.ts';
import { canonicalJson, reuseKey } from './reuse-key.ts';

const plan = {
  mode: 'auto',
  kind: 'static',
  install: ['npm ci'],
  build: ['vite build'],
  evidence: [],
  warnings: [],
} as unknown as Plan;
const inputs = {
  source_sha256: 'a',
  plan,
  build_env: { A: '1', B: '2' } as Record<string, string>,
  base: 'linux',
};

test('equal inputs give an equal key, whatever the order of their fields', () => {
  assert.equal(reuseKey(inputs), reuseKey({ ...inputs, build_env: { B: '2', A: '1' } }));
});

test('what decides the bytes changes the key; what only explains or probes does not', () => {
  const other = (change: Partial<typeof inputs>) =>
    assert.notEqual(reuseKey({ ...inputs, ...change }), reuseKey(inputs));
  other({ source_sha256: 'b' });
  other({ base: 'linux2' });
  other({ build_env: { A: '1' } });
  other({ plan: { ...plan, build: ['vite build --x'] } });
  other({ plan: { ...plan, output_path: 'out' } });
  const explained = {
    ...plan,
    warnings: ['w'],
    mode_reason: 'r',
    health_check_path: '/h',
    startup_timeout_ms: 1,
  };
  assert.equal(reuseKey({ ...inputs, plan: explained }), reuseKey(inputs));
});

test('canonical JSON tells apart what differs', () => {
  assert.equal(canonicalJson({ b: [1, null], a: 'x' }), '{"a":"x","b":[1,null]}');
  assert.notEqual(canonicalJson(['a', 'b']), canonicalJson(['a,b']));
});

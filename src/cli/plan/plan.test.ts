import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { run } from '../fixture.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'kiln-plan-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

test('a plan is shown in words and as data, without an engine', async () => {
  writeFileSync(path.join(dir, 'index.html'), '<h1>Hi</h1>');
  const words = await run(['plan', dir]);
  assert.equal(words.code, 0);
  assert.match(words.stdout, /^mode +static/);
  const plan = JSON.parse((await run(['plan', '.', '--json'], { cwd: dir })).stdout);
  assert.deepEqual([plan.mode, plan.kind], ['static', 'static']);
});

test('options and KILN_ variables override, and the plan says so', async () => {
  const env = { KILN_BUILD_COMMAND: 'make', KILN_HEALTH_CHECK_PATH: '/up' };
  const argv = ['plan', dir, '--run-command', './server', '--port', '3000', '--json'];
  const plan = JSON.parse((await run(argv, { env })).stdout);
  assert.deepEqual([plan.mode, plan.port, plan.health_check_path], ['explicit', 3000, '/up']);
  assert.deepEqual([plan.sources.start, plan.sources.build], ['request', 'environment']);
});

test('no plan is 3, contradicting options are 2', async () => {
  writeFileSync(path.join(dir, 'notes.txt'), 'hello');
  const none = await run(['plan', dir]);
  assert.equal(none.code, 3);
  assert.match(none.stderr, /Nothing in the source says/);
  const json = JSON.parse((await run(['plan', dir, '--json'])).stdout);
  assert.deepEqual([json.ok, json.exit_code, json.error.code], [false, 3, 'NO_PLAN']);
  assert.equal((await run(['plan', dir, '--kind', 'static', '--run-command', 'x'])).code, 2);
  assert.equal((await run(['plan', dir, '--kind', 'sideways'])).code, 2);
});

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeApi, run, sendJson } from '../fixture.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'kiln-plan-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(name: string, text: string): void {
  mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
  writeFileSync(path.join(dir, name), text);
}
const planned = async () => JSON.parse((await run(['plan', dir, '--json'])).stdout);

test('what .kilnignore leaves out decides nothing, as in a publish', async () => {
  write('app.py', 'from flask import Flask\napp = Flask(__name__)\n');
  write('requirements.txt', 'flask==3.0.3\n');
  write('site/index.html', 'x');
  assert.equal((await planned()).framework, 'flask');
  write('.kilnignore', 'app.py\nrequirements.txt\n');
  assert.deepEqual([(await planned()).kind, (await planned()).output_path], ['static', 'site']);
});

test('a start command in a folder that is left out: a warning, until .kilnignore takes it back in', async () => {
  write('package.json', '{"name":"x","scripts":{"start":"node dist/index.js"}}');
  write('dist/index.js', 'require("http").createServer().listen(process.env.PORT)');
  const warned = (await planned()).warnings.join('\n');
  assert.match(warned, /names dist\/index\.js, but the source has no dist.*!dist into \.kilnignore/);
  write('.kilnignore', '!dist\n');
  assert.doesNotMatch((await planned()).warnings.join('\n'), /dist/);
});

test('a site in dist with nothing to build it is what is published', async () => {
  write('dist/index.html', 'x');
  assert.deepEqual([(await planned()).kind, (await planned()).output_path], ['static', 'dist']);
});

test('a port that a live version holds is said, when an engine can be asked', async () => {
  write('package.json', '{"name":"x","scripts":{"start":"node s.js"}}');
  write('s.js', 'require("http").createServer().listen(4567)');
  const api = new FakeApi();
  const env = { KILN_API: await api.listen(), KILN_KEY: 'msk_test' };
  try {
    const shop = api.addDeployment('shop');
    const version = api.addVersion(shop.id, 3);
    Object.assign(shop, { active_version_id: version.id });
    api.intercept = ({ path: at }, response) => {
      if (!at.endsWith('/runtime-instances')) return false;
      sendJson(response, 200, { data: [{ id: 'ins_1', version_id: version.id, port: 4567, role: 'live' }] });
      return true;
    };
    const plan = JSON.parse((await run(['plan', dir, '--json'], { env })).stdout);
    assert.match(
      plan.warnings.join(),
      /port 4567 is held by version 3 of shop, which is live.*variable PORT/,
    );
  } finally {
    await api.close();
  }
  assert.doesNotMatch((await planned()).warnings.join(), /is held/);
});

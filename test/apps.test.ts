/** Apps as strangers write them: what they meet between their folder and a live address. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { choosePort } from '../src/engine/ports.ts';
import { writeApp } from './support/apps.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

const made: string[] = [];
const app = async (files: Record<string, string>) => {
  const dir = await writeApp(files);
  made.push(dir);
  return dir;
};

describe('apps as strangers write them', () => {
  let kiln: Kiln;
  before(async () => {
    kiln = await startKiln();
  });
  after(async () => {
    await kiln.close();
    await Promise.all(made.map((dir) => rm(dir, { recursive: true, force: true })));
  });

  test('verify: a small site that was never laid out on disk', async () => {
    const { version } = await kiln.publish(await app({ 'index.html': 'small' }));
    const at = `/deployments/${version.deployment_id}/versions/${version.id}/verify`;
    let operation = await kiln.ask('POST', at, {});
    while (operation.finished_at === null)
      operation = await kiln.ask('GET', `/operations/${operation.id}?wait=60`);
    assert.equal(operation.failure, null, JSON.stringify(operation.failure));
    assert.equal(operation.result.reproducible, true, JSON.stringify(operation.result));
  });

  test('a file deeper than planning looks is published all the same', async () => {
    const deep = `${Array.from({ length: 40 }, (_, at) => at).join('/')}/x.html`;
    const dir = await app({ 'index.html': 'top', [deep]: 'very deep' });
    const { deployment, version } = await kiln.publish(dir);
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    assert.equal((await kiln.get(deployment, `/${deep}`)).body, 'very deep');
  });

  test('a site without a page at its own address: live, and the log warns', async () => {
    const dir = await app({ 'src.txt': 'x' });
    const { version } = await kiln.publish(dir, {
      build_command:
        'mkdir -p out/img && echo hi > out/guide.html && echo x > out/img/a.txt && ln -s img out/pictures',
      output_path: 'out',
    });
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    const log = await kiln.buildLog(version.deployment_id, version.build_id);
    assert.match(log, /warning: .*answers 404: out has no index\.html\. Pages that are there: guide\.html/);
    assert.match(log, /warning: .*pictures: links to folders are not followed/);
  });

  test('a site built to live below a path: live, and the log says why it is blank', async () => {
    const page = '<script type="module" src="/portal/assets/app.js"></script><div id="root"></div>';
    const dir = await app({ 'index.html': page, 'app.js': '1' });
    const { version } = await kiln.publish(dir, {
      build_command: 'mkdir -p out/assets && cp index.html out/ && cp app.js out/assets/',
      output_path: 'out',
    });
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    const log = await kiln.buildLog(version.deployment_id, version.build_id);
    assert.match(
      log,
      /warning: index\.html asks for \/portal\/assets\/app\.js, which is at \/assets\/app\.js/,
    );
  });

  test('a site with one: no warning', async () => {
    const dir = await app({ 'index.html': 'x' });
    const { version } = await kiln.publish(dir, { output_path: '.', spa: true });
    const log = await kiln.buildLog(version.deployment_id, version.build_id);
    assert.doesNotMatch(log, /warning: /);
  });

  test('an app on a fixed port: found in its code, and published again as it is', async () => {
    const port = await choosePort(null, new Set());
    const fixed = (text: string) =>
      app({
        'package.json': '{"name":"fixed","scripts":{"start":"node s.js"}}',
        's.js': `const http = require('http'); const P = ${port};
http.createServer((q, r) => r.end('${text}')).listen(${port});`,
      });
    const first = await kiln.publish(await fixed('one'), { name: 'fixed' });
    assert.equal(first.version.state, 'ready', JSON.stringify(first.version.failure));
    const second = await kiln.publish(await fixed('two'), { deployment_id: first.deployment.id });
    assert.equal(second.version.state, 'ready', JSON.stringify(second.version.failure));
    assert.equal((await kiln.get(first.deployment)).body, 'two');
    const log = await kiln.buildLog(first.deployment.id, second.version.build_id);
    assert.match(
      log,
      new RegExp(`port ${port} is held by version 1 of fixed, which is live\\. Node, Python`),
    );
    assert.doesNotMatch(log, /warning: /);
  });
});

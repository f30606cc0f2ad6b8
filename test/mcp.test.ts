/** `kiln mcp` as an agent starts it: a process that speaks JSON-RPC on its standard input and output. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { staticSite, writeApp } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { startKiln } from './support/kiln.ts';

test('an agent publishes folders, follows the failure’s next step, and goes back', async () => {
  const kiln = await startKiln({ grace: '0' });
  const main = path.join(import.meta.dirname, '..', 'src', 'main.ts');
  const options = ['mcp', '--api', kiln.api_url, '--key', kiln.key, '--data', kiln.data_dir];
  const agent = spawn(process.execPath, [main, ...options], { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = new Map<number, (answer: Json) => void>();
  createInterface({ input: agent.stdout }).on('line', (line) => {
    const answer = JSON.parse(line);
    waiting.get(answer.id)?.(answer);
  });
  let last = 0;
  const ask = (method: string, params: object = {}): Promise<Json> =>
    new Promise((resolve) => {
      waiting.set(++last, resolve);
      agent.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: last, method, params })}\n`);
    });
  const tool = async (name: string, args: object) => {
    const { result } = await ask('tools/call', { name, arguments: args });
    const text: string = result.content[0].text;
    return { is_error: result.isError, text, json: text.startsWith('{') ? JSON.parse(text) : null };
  };
  const folders: string[] = [];
  try {
    const { result } = await ask('initialize', { protocolVersion: '2025-06-18' });
    assert.equal(result.serverInfo.name, 'kiln');
    const { tools } = (await ask('tools/list')).result;
    assert.ok(
      tools.some((one: Json) => one.name === 'publish_folder' && /explain_failure/.test(one.description)),
    );
    const live: string[] = [];
    for (const text of ['one', 'two']) {
      folders.push(await staticSite(text));
      const { json } = await tool('publish_folder', { folder: folders.at(-1), name: 'site', wait_sec: 60 });
      assert.equal(json.version.state, 'ready', JSON.stringify(json));
      live.push(json.version.id);
    }
    folders.push(await writeApp({ 'package.json': '{"name":"x","scripts":{"start":"exit 3"}}' }));
    const failed = await tool('publish_folder', { folder: folders.at(-1), name: 'site', wait_sec: 60 });
    assert.equal(failed.json.version.state, 'failed', failed.text);
    assert.match(failed.json.next_step, /explain_failure/);
    assert.equal(failed.json.deployment.active_version_id, live[1]);
    const why = await tool('explain_failure', { deployment: 'site' });
    assert.ok(why.json.next_step.length > 10 && why.json.code, why.text);
    await tool('rollback', { deployment: 'site' });
    const { json } = await tool('status', { deployment: 'site', version: '1' });
    assert.equal(json.deployment.active_version_id, live[0]);
    const unknown = await tool('status', { deployment: 'nobody' });
    assert.deepEqual([unknown.is_error, /NOT_FOUND/.test(unknown.text)], [true, true]);
    agent.stdin.end();
    const [code] = await new Promise<[number | null]>((resolve) => agent.once('exit', (c) => resolve([c])));
    assert.equal(code, 0);
  } finally {
    agent.kill('SIGKILL');
    await kiln.close();
    for (const folder of folders) await rm(folder, { recursive: true, force: true });
  }
});

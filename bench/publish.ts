/**
 * (b) engine overhead of a static publish: 1,000 files, from the publish call to the first byte served. Nothing is
 *     built, so all of it is Kiln's own.
 * (c) rollback: from the call to the first byte of the old version, for a static site and for a server kept warm.
 *
 * `node bench/publish.ts`; prints a table and a line of JSON.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { readConfig } from '../src/config.ts';
import { startServer } from '../src/server.ts';
import { nodeServer } from '../test/support/apps.ts';
import { Client, type Json } from '../test/support/client.ts';
import { flagsFor, tempDir } from '../test/support/folders.ts';
import { type Distribution, distribution, show } from './report.ts';

const FILES = 1000;
const PUBLISHES = 20;
const ROLLBACKS = 100;

export async function run(): Promise<Record<string, Distribution>> {
  const data_dir = await tempDir('bench');
  const server = await startServer(readConfig({}, flagsFor(data_dir)), {
    host_env: process.env as Record<string, string>,
  });
  const client = new Client(server.api_url, server.edge_url, server.key);
  try {
    const results = {
      'static publish of 1,000 files, call to first byte (ms)': await publishes(client),
      'rollback of a static site, call to first byte (ms)': await rollbacks(client, [
        await site('a'),
        await site('b'),
      ]),
      'rollback to a warm server, call to first byte (ms)': await rollbacks(client, [
        await nodeServer('a'),
        await nodeServer('b'),
      ]),
    };
    show('publish and rollback', results);
    return results;
  } finally {
    await server.close();
    await rm(data_dir, { recursive: true, force: true });
  }
}

async function site(text: string): Promise<string> {
  const dir = await tempDir('site');
  await writeFile(path.join(dir, 'index.html'), text);
  for (let n = 1; n < FILES; n++) {
    const folder = path.join(dir, `d${n % 20}`);
    await mkdir(folder, { recursive: true });
    await writeFile(path.join(folder, `f${n}.html`), `${text} ${n} `.repeat(200));
  }
  return dir;
}

/** Each publish changes one file, as a person would; upload to the sandbox is not counted. */
async function publishes(client: Client): Promise<Distribution> {
  const sandbox_id = await client.sandboxFrom(await site('first'));
  const deployment = await client.deployment('overhead');
  const times: number[] = [];
  for (let n = 0; n <= PUBLISHES; n++) {
    const content = Buffer.from(`version ${n}`).toString('base64');
    await client.ask('POST', `/sandboxes/${sandbox_id}/files`, { path: '/workspace/index.html', content });
    const started = performance.now();
    await client.publish(null, { sandbox_id, deployment_id: deployment.id });
    const { body } = await client.get(deployment);
    if (body !== `version ${n}`) throw new Error(`served ${body} instead of version ${n}`);
    // The first one warms the code up.
    if (n > 0) times.push(performance.now() - started);
  }
  return distribution(times);
}

async function rollbacks(client: Client, dirs: string[]): Promise<Distribution> {
  const versions: Json[] = [];
  let deployment: Json = null;
  for (const dir of dirs) {
    const published = await client.publish(dir, {
      deployment_id: deployment?.id,
      name: `roll-${Math.random().toString(36).slice(2, 8)}`,
    });
    deployment = published.deployment;
    versions.push(published.version);
  }
  const times: number[] = [];
  for (let n = 0; n < ROLLBACKS; n++) {
    const target = versions[n % 2]!;
    const started = performance.now();
    await client.ask('POST', `/deployments/${deployment.id}/rollback`, { version_id: target.id });
    const { body } = await client.get(deployment);
    times.push(performance.now() - started);
    if (!body.startsWith('ab'[n % 2]!)) throw new Error(`served ${body.slice(0, 20)} after rollback ${n}`);
  }
  return distribution(times);
}

if (import.meta.main) await run();

/** What is damaged or missing in the object store: the caller is told whose fault it is, and the next publish mends it. */
import assert from 'node:assert/strict';
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { KilnError } from '../src/domain/errors.ts';
import type { ObjectStore } from '../src/store/objects/port.ts';
import { staticSite } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

describe('damaged objects', () => {
  let kiln: Kiln;
  /** Runs before an object is looked up or read; what it does, the store then shows. */
  let meddle: (operation: 'head' | 'get', key: string) => Promise<void> = async () => undefined;
  before(async () => {
    kiln = await startKiln({}, undefined, { wrapObjects: meddling });
  });
  after(() => kiln.close());

  function meddling(store: ObjectStore): ObjectStore {
    return {
      put: (key, body) => store.put(key, body),
      putFile: (key, file) => store.putFile(key, file),
      head: async (key) => {
        await meddle('head', key);
        return store.head(key);
      },
      get: async (key, range) => {
        await meddle('get', key);
        return store.get(key, range);
      },
      localPath: (key) => store.localPath(key),
      delete: (key) => store.delete(key),
      list: (prefix) => store.list(prefix),
    };
  }

  const inStore = (key: string) => path.join(kiln.data_dir, 'objects', key);
  async function keysOf(version: Json): Promise<{ source: string; tar: string; index: string }> {
    const release = await kiln.ask('GET', `/releases/${version.release_id}`);
    const tar = `releases/${release.sha256}`;
    return {
      source: `sources/${version.source_sha256}.tar.zst`,
      tar: `${tar}.tar`,
      index: `${tar}.index.json`,
    };
  }
  /** A site that was published once; `again` publishes its unchanged workspace. */
  async function site(text: string) {
    const sandbox_id = await kiln.sandboxFrom(await staticSite(text));
    const first = await kiln.publish(null, { sandbox_id, name: `site-${text}` });
    assert.equal(first.version.state, 'ready', JSON.stringify(first.version.failure));
    const { deployment } = first;
    const again = () => kiln.publish(null, { sandbox_id, deployment_id: deployment.id });
    return { deployment, version: first.version, again };
  }

  for (const part of ['tar', 'index'] as const)
    for (const damage of ['cut short', 'other bytes'] as const)
      test(`the ${part} of a release, ${damage}: not promoted, and stored anew by the next publish`, async () => {
        const text = `${part}-${damage.replace(' ', '-')}`;
        const { deployment, version, again } = await site(text);
        assert.match((await kiln.get(deployment)).body, new RegExp(`<h1>${text}</h1>`));
        const key = (await keysOf(version))[part];
        const whole = await readFile(inStore(key));
        if (damage === 'cut short') await truncate(inStore(key), whole.length >> 1);
        else
          await writeFile(inStore(key), Buffer.from(whole).fill('#', whole.length >> 2, whole.length >> 1));
        const refused = await kiln.call(
          'POST',
          `/deployments/${deployment.id}/versions/${version.id}/promote`,
        );
        assert.equal(refused.json?.error?.code, 'STORAGE_FAILED', JSON.stringify(refused.json));
        const second = await again();
        assert.equal(second.version.state, 'ready', JSON.stringify(second.version.failure));
        assert.deepEqual(await readFile(inStore(key)), whole);
        // Visitors get it as well: the damaged file was open.
        while ((await kiln.get(deployment, '/style.css')).body !== 'h1 { color: red }')
          await new Promise((resolve) => setTimeout(resolve, 10));
        await kiln.ask('POST', `/deployments/${deployment.id}/versions/${version.id}/promote`);
      });

  test('a source snapshot: the version fails, the next publish takes a new one', async () => {
    const { version, again } = await site('source');
    const { source } = await keysOf(version);
    const whole = await readFile(inStore(source));
    meddle = async (operation, key) => {
      if (operation === 'get' && key === source) await truncate(inStore(source), whole.length >> 1);
    };
    const failed = (await again()).version;
    meddle = async () => undefined;
    assert.equal(failed.failure?.code, 'ARTIFACT_CORRUPT', JSON.stringify(failed.failure));
    assert.equal(failed.failure.fault, 'engine');
    const mended = (await again()).version;
    assert.equal(mended.state, 'ready', JSON.stringify(mended.failure));
    assert.equal((await again()).version.state, 'ready');
  });

  test('a source snapshot that is gone when it is built from', async () => {
    const { version, again } = await site('gone');
    const { source } = await keysOf(version);
    meddle = async (operation, key) => {
      if (operation === 'get' && key === source) throw new KilnError('ARTIFACT_GONE', 'gone');
    };
    const failed = (await again()).version;
    meddle = async () => undefined;
    assert.equal(failed.failure?.code, 'SOURCE_GONE', JSON.stringify(failed.failure));
    assert.equal((await again()).version.state, 'ready');
  });

  test('an equal, old artifact that retention removes while it is found: stored once more', async () => {
    const { version } = await site('same');
    const { tar } = await keysOf(version);
    const removed: string[] = [];
    meddle = async (operation, key) => {
      if (operation !== 'head' || key !== tar || removed.length > 0) return;
      removed.push(key);
      await rm(inStore(key));
    };
    const other = await kiln.publish(await staticSite('same'), { name: 'another-site', reuse: false });
    meddle = async () => undefined;
    assert.equal(other.version.state, 'ready', JSON.stringify(other.version.failure));
    assert.deepEqual(removed, [tar]);
    assert.match((await kiln.get(other.deployment)).body, /same/);
  });

  test('output that cannot be packed is the fault of the build', async () => {
    const { version } = await kiln.publish(await staticSite('odd'), {
      build_command: `mkdir -p out && cp index.html out && touch "out/$(printf 'caf\\351')"`,
      output_path: 'out',
    });
    assert.equal(version.failure?.code, 'OUTPUT_UNREADABLE', JSON.stringify(version.failure));
    assert.equal(version.failure.fault, 'user');
    assert.match(version.failure.message, /not valid UTF-8/);
    assert.deepEqual(await readdir(path.join(kiln.data_dir, 'tmp')), []);
  });

  test('an output folder that leads out of the workspace is the fault of the build', async () => {
    const { version } = await kiln.publish(await staticSite('out'), {
      build_command: 'ln -s /etc out',
      output_path: 'out',
    });
    assert.equal(version.failure?.code, 'OUTPUT_UNREADABLE', JSON.stringify(version.failure));
    assert.equal(version.failure.fault, 'user');
  });
});

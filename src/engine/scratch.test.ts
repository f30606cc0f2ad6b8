import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { aDeployment, aVersion, newId } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import { imageFileNames, openImage } from '../release/oci/image.ts';
import { type Item, imageOf } from '../release/oci/layers.fixtures.ts';
import { BASE_DIGEST } from '../release/oci/manifest.ts';
import { putImage, type StoredImage } from '../release/oci/store.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { takeSeq } from '../store/deployment.ts';
import { insertInstance } from '../store/instance.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import { insertRelease } from '../store/release.ts';
import type { EngineContext } from './context.ts';
import { makeFolders } from './folders.ts';
import { sweepImages } from './scratch.ts';

let database: Database;
let deployment: Deployment;
before(async () => {
  database = await testDatabase();
  deployment = await aDeployment(database.db);
});
after(() => database.close());

const layer = (name: string): Item[] => [{ name, content: name }];

async function released(image: StoredImage, is_running: boolean): Promise<void> {
  const { tenant_id, workspace_id, project_id } = deployment;
  const nobody = { external_workspace_id: null, external_user_id: null, external_project_id: null };
  const sha256 = image.digest.slice('sha256:'.length);
  await database.db.transaction().execute(async (trx) => {
    const version = await aVersion(trx, deployment, await takeSeq(trx, deployment.id));
    const release = await insertRelease(trx, {
      ...{ id: newId('rel'), tenant_id, workspace_id, project_id, ...nobody },
      ...{ deployment_id: deployment.id, version_id: version.id, kind: 'oci', sha256 },
      ...{ object_key: `blobs/sha256/${sha256}`, size_bytes: 1, reuse_key: sha256, ready_at: new Date() },
      ...{ manifest: { total_bytes: 1, entrypoint: null }, start_command: null, port: null },
    });
    if (is_running)
      await insertInstance(trx, {
        ...{ id: newId('ins'), tenant_id, deployment_id: deployment.id, version_id: version.id },
        ...{ release_id: release.id, operation_id: null, engine_id: null, replica: 0, role: 'live' },
      });
  });
}

test('root file systems stay with the base of builds, and with what runs on it or on an earlier one', async () => {
  const folders = await makeFolders(await tempDir('sweep-images'));
  const objects = fileObjectStore(folders.objects);
  const base = await imageOf(objects, [layer('base')]);
  const running = await imageOf(objects, [layer('base'), layer('running')]);
  const stopped = await imageOf(objects, [layer('base'), layer('stopped')]);
  const old = await imageOf(objects, [layer('old base'), layer('running')]);
  const annotations = { [BASE_DIGEST]: base.digest };
  const earlier = await putImage(objects, { config: old.config, layers: old.manifest.layers, annotations });
  const whole = await imageOf(objects, [layer('some'), layer('other')]);
  const gone = { ...whole, digest: `sha256:${'f'.repeat(64)}` };
  for (const image of [running, earlier, whole, gone]) await released(image, true);
  await released(stopped, false);

  const base_image = await openImage(objects, base.digest, { images_dir: folders.images });
  const ctx = { folders, objects, db: database.db, builder: { base_image } } as unknown as EngineContext;
  const names = async (...images: StoredImage[]) =>
    new Set((await Promise.all(images.map((of) => imageFileNames(objects, of.digest, base_image)))).flat());
  const kept = await names(base, running, earlier, whole);
  assert.equal(kept.size, 7, 'two bases with their headers, two releases on them, one as a whole');
  await mkdir(folders.images, { recursive: true });
  for (const name of [...kept, ...(await names(stopped))])
    await writeFile(path.join(folders.images, name), '');
  assert.equal(await sweepImages(ctx), 1);
  assert.deepEqual((await readdir(folders.images)).sort(), [...kept].sort());
});

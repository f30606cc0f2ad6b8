/** A disk that is really full: the object store on a small file system of its own (needs root to mount one). */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { staticSite } from './support/apps.ts';
import { tempDir } from './support/folders.ts';
import { startKiln } from './support/kiln.ts';

const MIB = 1024 * 1024;

function mount(dir: string): string | false {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', dir], { stdio: 'pipe' });
    return false;
  } catch (error) {
    return `a small file system cannot be mounted here: ${String(error)}`;
  }
}

test('a full disk: an error that says so, nothing half stored, production serves on', async (t) => {
  const data_dir = await tempDir('full');
  const objects = path.join(data_dir, 'objects');
  await mkdir(objects, { recursive: true });
  const refused = mount(objects);
  if (refused) return t.skip(refused);
  const kiln = await startKiln({}, data_dir);
  try {
    const { deployment, version } = await kiln.publish(await staticSite('small'));
    assert.equal(version.state, 'ready');
    const big = await staticSite('big');
    await writeFile(path.join(big, 'noise.bin'), randomBytes(4 * MIB));
    const sandbox_id = await kiln.sandboxFrom(big);
    // The snapshot still fits, the release beside it does not.
    const second = await kiln.publish(null, { sandbox_id, deployment_id: deployment.id });
    assert.equal(second.version.state, 'failed');
    assert.equal(second.version.failure.code, 'STORAGE_FAILED', JSON.stringify(second.version.failure));
    assert.match(second.version.failure.message, /full|space/i);
    await writeFile(path.join(big, 'noise.bin'), randomBytes(4 * MIB));
    await kiln.fill(sandbox_id, big);
    // Now not even the snapshot fits.
    const third = await kiln.call('POST', `/deployments/${deployment.id}/publish`, {
      source_sandbox_id: sandbox_id,
    });
    assert.ok(third.status >= 500, String(third.status));
    assert.equal((await kiln.ask('GET', `/deployments/${deployment.id}/versions`)).length, 2);
    assert.match((await kiln.get(deployment)).body, /small/);
    assert.deepEqual(execFileSync('find', [objects, '-path', '*.tmp/*'], { encoding: 'utf8' }), '');
  } finally {
    await kiln.close();
    execFileSync('umount', [objects]);
    await rm(data_dir, { recursive: true, force: true });
  }
});

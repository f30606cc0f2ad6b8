import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { firecrackerDriver } from './driver.ts';

it('without Firecracker the driver says what is missing', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-fcd-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const unused = () => Promise.reject(new Error('nothing is packed here'));
  const image = {
    ...{ digest: 'sha256:0', dir, kernel: join(dir, 'k'), initramfs: join(dir, 'i'), rootfs: join(dir, 'r') },
  } as unknown as Parameters<typeof firecrackerDriver>[0]['image'];
  const options = {
    ...{ data_dir: dir, work_dir: dir, host_env: {}, pack: unused, unpack: unused },
    binary: join(dir, 'firecracker'),
  };
  const without_image = await firecrackerDriver({ ...options, image: null }).selfTest();
  assert.ok(!without_image.ok && /no builder image/.test(without_image.reason));
  const tested = await firecrackerDriver({
    ...options,
    image,
    binary: 'kiln-no-such-firecracker',
  }).selfTest();
  assert.ok(!tested.ok && /firecracker is not installed/.test(tested.reason), JSON.stringify(tested));
  assert.match(tested.install ?? '', /firecracker-microvm\/firecracker\/releases/);
});

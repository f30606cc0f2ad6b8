import { after, it } from 'node:test';
import { baseImage, dockerMissing, startDocker } from '../../../test/support/docker.ts';
import { isolationContract } from '../contract.ts';
import { dockerDriver } from './driver.ts';

const missing = dockerMissing();
if (missing !== null) it('docker is skipped', { skip: missing }, () => undefined);
else {
  const docker = await startDocker();
  after(() => docker.stop());
  const base_image = await baseImage();
  const kept = new URL('../../../test/support/docker-driver.ts', import.meta.url).href;
  await isolationContract(
    'docker',
    (o) => dockerDriver(Object.assign(o, { socket: docker.socket, base_image })),
    kept,
  );
}

import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, describe } from 'node:test';
import { baseImage, dockerMissing, startDocker } from '../../../test/support/docker.ts';
import { tempDir } from '../../../test/support/folders.ts';
import { instanceCases } from '../contract/instances.ts';
import { dockerRuntime } from './runtime.ts';

const missing = dockerMissing();

describe('instance contract: docker', { skip: missing ?? false }, async () => {
  if (missing !== null) return;
  const docker = await startDocker();
  const dir = await tempDir('docker-instances');
  after(async () => {
    await docker.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const data_dir = path.join(dir, 'data');
  await mkdir(data_dir);
  // A range of its own: a run that was killed may have left a bridge behind.
  const network_range = `10.214.${process.pid % 256}.0/24`;
  instanceCases({
    open: () => dockerRuntime({ data_dir, socket: docker.socket, network_range }),
    image: (config) => baseImage({ Env: ['PATH=/usr/local/bin:/usr/bin:/bin'], ...config }),
  });
});

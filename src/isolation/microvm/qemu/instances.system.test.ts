import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import { instanceCases } from '../../contract/instances.ts';
import { builderAsImage, makeInstances, TEST_PARTS, testImage } from './contract.fixtures.ts';
import { qemuDriver } from './driver.ts';

const builder = await testImage();
const dir = await mkdtemp(join(tmpdir(), 'kiln-instances-'));
const options = {
  ...{ data_dir: join(dir, 'data'), work_dir: join(dir, 'data/machines') },
  ...{ host_env: { PATH: process.env.PATH }, ...TEST_PARTS, image: builder },
};
await mkdir(options.work_dir, { recursive: true });
const driver = qemuDriver(options);
const tested = await driver.selfTest();

describe('instance contract: qemu', {
  skip: tested.ok ? false : `qemu does not work here: ${tested.reason}`,
}, () => {
  after(() => rm(dir, { recursive: true, force: true }));
  instanceCases({
    open: () => makeInstances(options, driver),
    image: async (config) => builderAsImage(builder, config),
  });
});

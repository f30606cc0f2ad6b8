import { isolationContract } from '../../contract.ts';
import { TEST_PARTS, testImage } from './contract.fixtures.ts';
import { qemuDriver } from './driver.ts';

const image = await testImage();

await isolationContract(
  'qemu',
  (o) => qemuDriver({ ...o, ...TEST_PARTS, image }),
  new URL('./contract.fixtures.ts', import.meta.url).href,
);

import { isolationContract } from '../contract.ts';
import { processDriver } from './driver.ts';

await isolationContract('process', processDriver);

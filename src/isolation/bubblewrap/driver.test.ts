import { isolationContract } from '../contract.ts';
import { bubblewrapDriver } from './driver.ts';

await isolationContract('bubblewrap', bubblewrapDriver);

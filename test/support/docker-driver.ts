/** The docker driver for an engine of its own, which knows no more than options sent as JSON. */
import { dockerDriver as make } from '../../src/isolation/docker/driver.ts';
import type { DriverOptions, IsolationDriver } from '../../src/isolation/driver.ts';
import { baseImage } from './docker.ts';

export async function dockerDriver(o: DriverOptions & { socket: string }): Promise<IsolationDriver> {
  return make({ ...o, base_image: await baseImage() });
}

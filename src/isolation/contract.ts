import { after, before, describe, it } from 'node:test';
import { basicCases } from './contract/basics.ts';
import { escapeCases } from './contract/escape.ts';
import { type Bench, openBench } from './contract/harness.ts';
import { limitCases } from './contract/limits.ts';
import { movedPortCases } from './contract/moved-port.ts';
import { networkCases } from './contract/network.ts';
import { crashCases, stopCases } from './contract/stop.ts';
import type { DriverName, DriverOptions, IsolationDriver } from './driver.ts';

/**
 * The suite that every driver passes. A driver whose self-test fails here is skipped as a whole, a case that needs
 * a capability the driver does not claim is skipped alone; both with the reason.
 */
export async function isolationContract(
  name: DriverName,
  make: (o: DriverOptions) => IsolationDriver,
  /** Exports `<name>Driver`, which a process of its own makes from options alone; default: the driver's own. */
  module = new URL(`./${name}/driver.ts`, import.meta.url).href,
): Promise<void> {
  const probe = await openBench(make);
  const test = await probe.driver.selfTest();
  // Emulated processors are that much slower than the host's own.
  const patience = test.ok && test.emulated ? 12 : 1;
  await probe.close();
  const skip = test.ok ? false : `${name} does not work here: ${test.reason}`;

  describe(`isolation contract: ${name}`, { skip }, () => {
    let open: Bench | undefined;
    const bench = () => open!;
    before(async () => {
      open = await openBench(make, patience);
    });
    after(() => open?.close());
    describe('basics', () => basicCases(bench));
    describe('limits', () => limitCases(bench));
    describe('stop', () => stopCases(bench));
    describe('crash', () => crashCases(bench, name, module));
    describe('escape', () => escapeCases(bench));
    describe('network', () => networkCases(bench));
    describe('moved port', () => movedPortCases(bench));
  });
  if (skip !== false) it(`${name} is skipped`, { skip }, () => undefined);
}

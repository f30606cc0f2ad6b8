import { KilnError } from '../domain/errors.ts';
import { bubblewrapDriver } from './bubblewrap/driver.ts';
import type { DriverName, DriverOptions, IsolationDriver } from './driver.ts';
import { processDriver } from './process/driver.ts';

/** Strongest first. */
const DRIVERS: [DriverName, (o: DriverOptions) => IsolationDriver][] = [
  ['bubblewrap', bubblewrapDriver],
  ['process', processDriver],
];

export interface DriverReport {
  name: DriverName;
  ok: boolean;
  /** What it gives, or why it does not work here. */
  detail: string;
  /** What to do so that it works, null when nothing is missing or known. */
  install: string | null;
}

/**
 * `auto`: the strongest driver that proves to work here; a name: that driver or a KilnError UNSUPPORTED which says
 * what is missing. `explain` has every driver that was tried, strongest first.
 */
export async function chooseDriver(
  wanted: 'auto' | DriverName,
  o: DriverOptions,
  drivers: typeof DRIVERS = DRIVERS,
): Promise<{ driver: IsolationDriver; explain: DriverReport[] }> {
  const explain: DriverReport[] = [];
  let chosen: IsolationDriver | undefined;
  for (const [name, make] of drivers) {
    if (wanted !== 'auto' && wanted !== name) continue;
    const driver = make(o);
    const test = await driver.selfTest();
    explain.push(
      test.ok
        ? { name, ok: true, detail: test.detail, install: null }
        : { name, ok: false, detail: test.reason, install: test.install },
    );
    if (test.ok) chosen ??= driver;
  }
  if (chosen !== undefined) return { driver: chosen, explain };
  const reasons = explain.map((one) =>
    [`${one.name}: ${one.detail}.`, one.install].filter(Boolean).join(' '),
  );
  throw new KilnError(
    'UNSUPPORTED',
    `Code cannot be run here with isolation \`${wanted}\`. ${reasons.join(' ')} Or choose another driver.`,
    { details: { explain } },
  );
}

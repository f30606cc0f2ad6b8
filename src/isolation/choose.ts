/**
 * Which drivers an engine uses. Strength decides, and a self-test: a driver that does not prove to work here is not taken,
 * whatever is installed. Four jobs are given out:
 *
 *   host           sandbox execs, and instances of releases that start from this machine's own files
 *   builds         the host driver, or one that starts from a base image
 *   images         instances of OCI releases
 *   dockerfiles    BuildKit
 */
import { KilnError } from '../domain/errors.ts';
import type { DriverName, IsolationDriver, SelfTest } from './driver.ts';
import type { ImageBuilder } from './image-builder.ts';
import type { ImageRuntime, RuntimeName } from './runtime.ts';

/** Each list strongest first. */
export interface Candidates {
  host: readonly IsolationDriver[];
  /** Drivers that build from a base image. */
  builders: readonly IsolationDriver[];
  runtimes: readonly ImageRuntime[];
  image_builders: readonly ImageBuilder[];
}

export type Job = 'host' | 'builds' | 'images' | 'dockerfiles';

export interface DriverReport {
  name: string;
  job: Job;
  ok: boolean;
  in_use: boolean;
  /** What it gives, or why it does not work here. */
  detail: string;
  /** What to do so that it works, null when nothing is missing or known. */
  install: string | null;
}

export interface Isolation {
  driver: IsolationDriver;
  builder: IsolationDriver;
  runtime: ImageRuntime | null;
  image_builder: ImageBuilder | null;
  /** Why there is no runtime or no image builder, and what to do about it; '' when nothing is missing. */
  images_missing: string;
  /** Tries what was not needed so far as well. */
  explain(): Promise<DriverReport[]>;
}

export interface Wanted {
  builds: 'auto' | DriverName;
  instances: 'auto' | 'host' | RuntimeName;
}

type Tested<T> = { one: T; test: SelfTest };

const HOST_NAMES: readonly string[] = ['bubblewrap', 'process'];

/** Rejects with KilnError UNSUPPORTED when nothing works, or not the one that was asked for; it says what is missing. */
export async function chooseIsolation(wanted: Wanted, from: Candidates): Promise<Isolation> {
  const names_host = HOST_NAMES.includes(wanted.builds);
  const hosts = from.host.filter((one) => !names_host || one.name === wanted.builds);
  const [host, builders, runtimes, image_builders] = await Promise.all([
    testUntilOneWorks(hosts),
    testAll(from.builders.filter((one) => wanted.builds === 'auto' || one.name === wanted.builds)),
    testAll(from.runtimes.filter((one) => wanted.instances === 'auto' || one.name === wanted.instances)),
    testAll(from.image_builders),
  ]);
  const driver = strongest(host);
  if (driver === null) throw nothingWorks(names_host ? wanted.builds : 'auto', host);
  const builder = names_host
    ? driver
    : wanted.builds === 'auto'
      ? strongest([...builders, { one: driver, test: { ok: true, detail: '' } }], 'hardware')
      : strongest(builders);
  if (builder === null) {
    // Without a base image a driver of builds is no candidate; whether its program is there, its runtime knows.
    const related = builders.length > 0 ? builders : runtimes.filter(({ one }) => one.name === wanted.builds);
    throw nothingWorks(wanted.builds, related, builders.length > 0 ? '' : NO_BASE);
  }
  const runtime = strongest(runtimes);
  if (runtime === null && wanted.instances !== 'auto' && wanted.instances !== 'host')
    throw nothingWorks(wanted.instances, runtimes);
  // A buildkitd is there only when somebody named it; otherwise Dockerfiles are built where everything else is.
  const preferred = ['buildctl', builder.name];
  const image_builder =
    image_builders.find(({ one, test }) => test.ok && preferred.includes(one.name))?.one ??
    strongest(image_builders);
  let others: Promise<Tested<IsolationDriver>[]> | undefined;
  const missing = [...(runtime ? [] : runtimes), ...(image_builder ? [] : image_builders)];
  return {
    ...{ driver, builder, runtime, image_builder },
    images_missing:
      wanted.instances === 'host' ? 'It was started with --instance-isolation host.' : reasons(missing),
    async explain() {
      others ??= testAll(hosts.slice(host.length));
      return [
        ...report('host', [...host, ...(await others)], driver),
        ...report('builds', builders, builder),
        ...report('images', runtimes, runtime),
        ...report('dockerfiles', image_builders, image_builder),
      ];
    },
  };
}

/** A weaker one would change nothing, and its test machine costs every start 50 ms. */
async function testUntilOneWorks(drivers: readonly IsolationDriver[]): Promise<Tested<IsolationDriver>[]> {
  const tested: Tested<IsolationDriver>[] = [];
  for (const one of drivers) {
    const test = await one.selfTest();
    tested.push({ one, test });
    if (test.ok) break;
  }
  return tested;
}

async function testAll<T extends { selfTest(): Promise<SelfTest> }>(
  drivers: readonly T[],
): Promise<Tested<T>[]> {
  return Promise.all(drivers.map(async (one) => ({ one, test: await one.selfTest() })));
}

/** `hardware`: an emulated one is not taken, for a weaker one that runs at full speed is there. */
function strongest<T>(tested: readonly Tested<T>[], only: 'any' | 'hardware' = 'any'): T | null {
  const works = tested.filter(({ test }) => test.ok);
  const fast = works.find(({ test }) => test.ok && !test.emulated);
  return (fast ?? (only === 'any' ? works[0] : undefined))?.one ?? null;
}

function report<T extends { name: string }>(
  job: Job,
  tested: readonly Tested<T>[],
  used: unknown,
): DriverReport[] {
  return tested.map(({ one, test }) => ({
    name: one.name,
    job,
    ok: test.ok,
    in_use: one === used,
    detail: test.ok ? test.detail : test.reason,
    install: test.ok ? null : test.install,
  }));
}

function reasons(tested: readonly Tested<{ name: string }>[]): string {
  const said = tested.flatMap(({ one, test }) =>
    test.ok ? [] : [[`${one.name}: ${test.reason}.`, sentence(test.install)].filter(Boolean).join(' ')],
  );
  return [...new Set(said)].join(' ');
}

/** In a table a command stands by itself; among sentences it has to be told from them. */
const sentence = (install: string | null | undefined): string =>
  !install ? '' : /^kiln /.test(install) ? `Run \`${install}\`.` : install;

const NO_BASE =
  'Its builds start from a base image, and there is none: make one with `kiln builder-image build`, or name one with --base-image.';

function nothingWorks(wanted: string, tested: readonly Tested<{ name: string }>[], also = ''): KilnError {
  const why = [reasons(tested), also].filter(Boolean).join(' ');
  return new KilnError(
    'UNSUPPORTED',
    `Code cannot be run here with isolation \`${wanted}\`. ${why} Or choose another driver.`,
    { details: { explain: tested.map(({ one, test }) => ({ name: one.name, ...test })) } },
  );
}

/**
 * What isolation costs, side by side in one run:
 *
 *   boot         call to the first line of the command, in a microVM booted for it and in one that waited (warm)
 *   build        the same npm build bare, and with every driver that works here: bubblewrap, docker, qemu
 *   dockerfile   publish of a Dockerfile app to live, against `docker build` and `docker run` of it, to the first answer
 *
 * `npm run bench -- isolation`. What is missing here is left out and named. Docker is the one that DOCKER_HOST names, or
 * the usual socket; the builder image is that of the system tests, made where it is missing (minutes).
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openBaseImage } from '../src/base-image.ts';
import { readConfig } from '../src/config.ts';
import { bubblewrapDriver } from '../src/isolation/bubblewrap/driver.ts';
import { dockerDriver } from '../src/isolation/docker/driver.ts';
import type { IsolationDriver, Limits } from '../src/isolation/driver.ts';
import { cacheDriveBytes } from '../src/isolation/microvm/drives.ts';
import { TEST_PARTS, testImage } from '../src/isolation/microvm/qemu/contract.fixtures.ts';
import { qemuDriver } from '../src/isolation/microvm/qemu/driver.ts';
import { processDriver } from '../src/isolation/process/driver.ts';
import { startServer } from '../src/server.ts';
import { Client } from '../test/support/client.ts';
import { flagsFor, tempDir } from '../test/support/folders.ts';
import { freePort } from '../test/support/registry.ts';
import { type Distribution, distribution, show } from './report.ts';

const MIB = 1024 * 1024;
const BOOTS = 5;
const BUILDS = 3;
const PUBLISHES = 3;
const LIMITS: Limits = {
  ...{ time_ms: 600_000, memory_bytes: 1024 * MIB, processes: 512, disk_bytes: 1024 * MIB },
  ...{ log_bytes: 16 * MIB, on_log_limit: 'drop' },
};
const CACHE_BYTES = cacheDriveBytes(256 * MIB);
const call = promisify(execFile);
type Results = Record<string, Distribution>;

export async function run(): Promise<Results> {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-bench-isolation-'));
  try {
    const drivers = await openDrivers(dir);
    const results: Results = {};
    for (const [title, measure] of Object.entries({
      'call to the first line of a machine (ms)': () => boots(dir, drivers),
      'npm install of express, call to result (ms)': () => builds(dir, drivers),
      'a changed Dockerfile app, to the first answer (ms)': () => dockerfiles(dir),
    })) {
      const part = await measure();
      if (Object.keys(part).length > 0) show(title, part);
      Object.assign(results, part);
    }
    return results;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function openDrivers(dir: string): Promise<IsolationDriver[]> {
  const options = { data_dir: dir, work_dir: path.join(dir, 'machines'), host_env: process.env };
  await mkdir(options.work_dir);
  const { memory_bytes, disk_bytes } = LIMITS;
  const shape = { memory_bytes, disk_bytes, input_bytes: 64 * MIB, cache_bytes: CACHE_BYTES };
  const socket = process.env.DOCKER_HOST?.replace('unix://', '');
  const image = await testImage();
  const base_image = await openBaseImage({
    ...{ dir: path.join(dir, 'base'), images_dir: path.join(dir, 'images'), wanted: null, builder: image },
    ...{ host_env: process.env as Record<string, string>, say: () => {} },
  });
  const candidates = [
    bubblewrapDriver(options),
    dockerDriver({ ...options, ...(socket ? { socket } : {}), base_image: base_image! }),
    qemuDriver({ ...options, ...TEST_PARTS, vcpus: 2, image, warm: { size: 1, shape } }),
  ];
  const drivers: IsolationDriver[] = [processDriver(options)];
  for (const driver of candidates) {
    const test = await driver.selfTest();
    console.log(`${driver.name}: ${test.ok ? test.detail : `left out, ${test.reason}`}`);
    if (test.ok) drivers.push(driver);
  }
  return drivers;
}

let count = 0;
/** Runs a command in a machine of its own. Times count from the call; `first_ms`: to its first line. */
async function inMachine(
  driver: IsolationDriver,
  o: { dir: string; command: string; cache?: string; max_bytes?: number },
) {
  const started = performance.now();
  let first_ms = 0;
  let output = '';
  const machine = await driver.start({
    ...{ id: `mch_bench${count++}`, kind: 'build', workspace_dir: o.dir, cwd: '.', env: {}, limits: LIMITS },
    ...(o.cache ? { cache: { dir: o.cache, max_bytes: CACHE_BYTES } } : {}),
    command: o.command,
    on_output: (_, chunk) => {
      first_ms ||= performance.now() - started;
      output += chunk.toString();
    },
  });
  const exit = await machine.exited;
  if (exit.exit_code !== 0) throw new Error(`${driver.name}: ${JSON.stringify(exit)}\n${output}`);
  return { first_ms, whole_ms: performance.now() - started };
}

async function boots(dir: string, drivers: readonly IsolationDriver[]): Promise<Results> {
  const results: Results = {};
  for (const driver of drivers) {
    const measure = async (ready: () => Promise<unknown>) => {
      const times: number[] = [];
      for (let n = 0; n < BOOTS; n++) {
        const workspace = await mkdtemp(path.join(dir, 'empty-'));
        await ready();
        times.push((await inMachine(driver, { dir: workspace, command: 'echo up' })).first_ms);
      }
      return distribution(times);
    };
    results[driver.name] = await measure(async () => {});
    if (!('waiting' in driver)) continue;
    driver.warm?.();
    const waiting = driver.waiting as () => number;
    results[`${driver.name}, warm`] = await measure(async () => {
      while (waiting() === 0) await sleep(20);
    });
    await driver.close?.();
  }
  return results;
}

/** 70 packages, installed and required. `first` fills a cache that the others find. */
async function builds(dir: string, drivers: readonly IsolationDriver[]): Promise<Results> {
  const command =
    'npm install --no-audit --no-fund --prefer-offline --loglevel=error && node -e "require(\'express\')"';
  const app = async () => {
    const folder = await mkdtemp(path.join(dir, 'app-'));
    const manifest = { name: 'app', version: '1.0.0', dependencies: { express: '4.21.2' } };
    await writeFile(path.join(folder, 'package.json'), JSON.stringify(manifest));
    return folder;
  };
  const caches = new Map<string, string>();
  for (const driver of drivers) caches.set(driver.name, await mkdtemp(path.join(dir, 'cache-')));
  const bare_cache = await mkdtemp(path.join(dir, 'cache-'));
  const times: Record<string, number[]> = {};
  const add = (name: string, n: number, ms: number) => {
    const key = `${name}, ${n === 0 ? 'no cache' : 'cached'}`;
    times[key] ??= [];
    times[key].push(ms);
  };
  for (let n = 0; n <= BUILDS; n++) {
    const started = performance.now();
    await call('sh', ['-c', command], {
      cwd: await app(),
      env: { ...process.env, npm_config_cache: bare_cache },
    });
    add('bare', n, performance.now() - started);
    for (const driver of drivers) {
      const cache = caches.get(driver.name)!;
      add(driver.name, n, (await inMachine(driver, { dir: await app(), command, cache })).whole_ms);
    }
  }
  return Object.fromEntries(Object.entries(times).map(([name, of]) => [name, distribution(of)]));
}

/** Nothing can be pulled here, so the image is made of a static busybox. Each round changes a file of the first step. */
const DOCKERFILE = `FROM scratch AS build
COPY busybox /bin/sh
COPY index.html /src/index.html
RUN sed s/NAME/you/ /src/index.html > /index.html
FROM scratch
COPY --from=build /bin/sh /bin/busybox
COPY --from=build /index.html /www/index.html
EXPOSE 3000
CMD ["/bin/busybox", "httpd", "-f", "-p", "3000", "-h", "/www"]
`;

async function dockerfiles(dir: string): Promise<Results> {
  const works = await call('docker', ['version']).then(
    () => true,
    () => false,
  );
  if (!works) {
    console.log('Dockerfile publish: left out, no Docker daemon answers (set DOCKER_HOST)');
    return {};
  }
  const app = path.join(dir, 'dockerfile-app');
  await mkdir(app);
  await copyFile('/bin/busybox', path.join(app, 'busybox'));
  await writeFile(path.join(app, 'Dockerfile'), DOCKERFILE);
  const data_dir = await tempDir('bench');
  const docker_host = process.env.DOCKER_HOST;
  const flags = { 'instance-isolation': 'docker', ...(docker_host ? { 'docker-host': docker_host } : {}) };
  const config = readConfig({}, flagsFor(data_dir, flags));
  const server = await startServer(config, { host_env: process.env as Record<string, string> });
  const client = new Client(server.api_url, server.edge_url, server.key);
  const ours: number[] = [];
  const plain: number[] = [];
  try {
    const deployment = await client.deployment('dockerfile');
    for (let n = 0; n <= PUBLISHES; n++) {
      await writeFile(path.join(app, 'index.html'), `NAME ${n}`);
      const started = performance.now();
      await client.publish(app, { deployment_id: deployment.id });
      const { body } = await client.get(deployment);
      if (body.trim() !== `you ${n}`) throw new Error(`served ${body} in round ${n}`);
      const by_docker = await dockerBuildAndRun(app, `you ${n}`);
      if (n === 0) continue; // The first warms both up.
      ours.push(performance.now() - started - by_docker);
      plain.push(by_docker);
    }
    await client.ask('POST', `/deployments/${deployment.id}/scale`, { instances: 0 });
  } finally {
    await server.close();
    await rm(data_dir, { recursive: true, force: true });
  }
  return {
    'Dockerfile publish to live': distribution(ours),
    'docker build + docker run': distribution(plain),
  };
}

/** Milliseconds to the first right answer. */
async function dockerBuildAndRun(app: string, expected: string): Promise<number> {
  const port = await freePort();
  const started = performance.now();
  const env = { ...process.env, DOCKER_BUILDKIT: '1' };
  await call('docker', ['build', '--quiet', '--tag', 'kiln-bench', app], { env });
  const published = `127.0.0.1:${port}:3000`;
  const { stdout } = await call('docker', ['run', '--detach', '--rm', '--publish', published, 'kiln-bench']);
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/`).then(
      (one) => one.text(),
      () => '',
    );
    if (answer.trim() === expected) break;
    if (performance.now() - started > 60_000) throw new Error('the container does not answer');
    await sleep(10);
  }
  const took_ms = performance.now() - started;
  await call('docker', ['rm', '--force', stdout.trim()]);
  return took_ms;
}

if (import.meta.main) await run();

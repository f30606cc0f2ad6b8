/**
 * Requests per second, latency and processor time of the edge, static and proxied, beside a bare node:http server that
 * answers the same body, and beside nginx and Caddy as proxies of that server where they are installed; all on this
 * machine in one run. Each server is a process of its own. Prints a table and one line of JSON. Alone: `node bench/edge.ts`.
 */
import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startEdge } from '../src/edge/edge.ts';
import { appRoute, MemoryFeed, MemoryObjects, staticRoute } from '../src/edge/fixture.ts';
import { startReferences } from './edge-references.ts';

const SELF = fileURLToPath(import.meta.url);
const BODY = Buffer.alloc(4096, 'kiln ');
const CONNECTIONS = 64;
const WARM_UP_S = 1;
const MEASURE_S = 4;
/** The cases are measured in turn, so that a slow moment of the machine hits all of them. */
const ROUNDS = 3;

interface Sample {
  requests_per_s: number;
  /** Of the server's own process; null where the system does not tell. */
  cpu_us_per_request: number | null;
  p50_ms: number;
  p99_ms: number;
  errors: number;
}

interface Case extends Sample {
  name: string;
  /** Requests per second, as a share of the bare server's. */
  ratio: number;
}

interface Target {
  name: string;
  port: number;
  host: string;
  pid: number;
}

type Load = (target: Target, seconds: number) => Promise<Omit<Sample, 'cpu_us_per_request'>>;

/** Measures everything and prints it. Rejects when a server does not start. */
export async function run(): Promise<{ bench: 'edge'; load: 'wrk' | 'node'; cores: number; cases: Case[] }> {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-bench-edge-'));
  const bare = await startRole('bare', []);
  const edge = await startRole('edge', [dir, String(bare.port)]);
  const references = await startReferences(dir, bare.port);
  try {
    const load = (await hasWrk()) ? loadWithWrk : loadWithNode;
    const targets: Target[] = [
      { name: 'bare node:http', host: 'localhost', ...bare },
      { name: 'edge, static 4 KiB', host: 'site.acme.localhost', ...edge },
      { name: 'edge, proxied 4 KiB', host: 'app.acme.localhost', ...edge },
      ...references.map((reference) => ({ host: 'localhost', ...reference })),
    ];
    const samples = new Map<Target, Sample[]>(targets.map((target) => [target, []]));
    for (const target of targets) await load(target, WARM_UP_S);
    for (let round = 0; round < ROUNDS; round++) {
      for (const target of targets) samples.get(target)!.push(await measure(target, load));
    }
    const cases = compare(targets, samples);
    const by = load === loadWithWrk ? ('wrk' as const) : ('node' as const);
    const result = { bench: 'edge' as const, load: by, cores: cpus().length, cases };
    console.table(Object.fromEntries(cases.map(({ name, ...rest }) => [name, rest])));
    console.log(JSON.stringify(result));
    return result;
  } finally {
    for (const server of [bare, edge, ...references]) server.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

function compare(targets: Target[], samples: Map<Target, Sample[]>): Case[] {
  const medians = targets.map((target) => medianSample(samples.get(target)!));
  const base = medians[0]!.requests_per_s;
  return targets.map(({ name }, i) => ({
    name,
    ...medians[i]!,
    ratio: Math.round((medians[i]!.requests_per_s / base) * 100) / 100,
  }));
}

/** The sample with the middle rate; its latencies belong to it. */
function medianSample(samples: Sample[]): Sample {
  const errors = samples.reduce((sum, sample) => sum + sample.errors, 0);
  const sorted = samples.toSorted((a, b) => a.requests_per_s - b.requests_per_s);
  return { ...sorted[Math.floor(sorted.length / 2)]!, errors };
}

async function measure(target: Target, load: Load): Promise<Sample> {
  const before = await cpuTicks(target.pid);
  const sample = await load(target, MEASURE_S);
  const after = await cpuTicks(target.pid);
  if (before === null || after === null) return { ...sample, cpu_us_per_request: null };
  const us = ((after - before) * US_PER_TICK) / (sample.requests_per_s * MEASURE_S);
  return { ...sample, cpu_us_per_request: Math.round(us * 10) / 10 };
}

/** What Linux counts in, whatever the kernel's own clock. */
const US_PER_TICK = 10_000;

/** User and system time of a process. */
async function cpuTicks(pid: number): Promise<number | null> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => null);
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

async function hasWrk(): Promise<boolean> {
  return promisify(execFile)('wrk', ['--version']).then(
    () => true,
    // It prints its version and exits with 1.
    (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
  );
}

async function loadWithWrk(target: Target, seconds: number): ReturnType<Load> {
  const options = ['-t1', `-c${CONNECTIONS}`, `-d${seconds}s`, '--latency', '-H', `Host: ${target.host}`];
  const { stdout } = await promisify(execFile)('wrk', [...options, `http://127.0.0.1:${target.port}/`]);
  const errors =
    Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0) +
    (/Socket errors: .*/.exec(stdout)?.[0].match(/\d+/g) ?? []).reduce((sum, n) => sum + Number(n), 0);
  return {
    requests_per_s: Math.round(Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)![1])),
    p50_ms: milliseconds(/50%\s+([\d.]+\w+)/.exec(stdout)![1]!),
    p99_ms: milliseconds(/99%\s+([\d.]+\w+)/.exec(stdout)![1]!),
    errors,
  };
}

function milliseconds(text: string): number {
  const [, value, unit] = /^([\d.]+)(us|ms|s)$/.exec(text)!;
  return Math.round(Number(value) * { us: 0.001, ms: 1, s: 1000 }[unit as 'us' | 'ms' | 's'] * 100) / 100;
}

/** The built-in load: every connection asks again as soon as it was answered. It takes CPU from the servers. */
async function loadWithNode(target: Target, seconds: number): ReturnType<Load> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const until = performance.now() + seconds * 1000;
  const durations: number[] = [];
  let errors = 0;
  const client = async (): Promise<void> => {
    while (performance.now() < until) {
      const started = performance.now();
      const ok = await askOnce(target, agent);
      durations.push(performance.now() - started);
      if (!ok) errors++;
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, client));
  agent.destroy();
  durations.sort((a, b) => a - b);
  const at = (share: number): number =>
    Math.round(durations[Math.floor(durations.length * share)]! * 100) / 100;
  return {
    requests_per_s: Math.round(durations.length / seconds),
    p50_ms: at(0.5),
    p99_ms: at(0.99),
    errors,
  };
}

function askOnce(target: Target, agent: http.Agent): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { agent, host: '127.0.0.1', port: target.port, headers: { host: target.host } };
    const request = http.get(options, (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode === 200));
    });
    request.once('error', () => resolve(false));
  });
}

/** This file again, as one of the servers. */
async function startRole(role: 'bare' | 'edge', args: string[]) {
  const child = fork(SELF, [role, ...args], { stdio: 'inherit' });
  const [port] = await Promise.race([
    once(child, 'message') as Promise<[number]>,
    once(child, 'exit').then(() => Promise.reject(new Error(`the ${role} server did not start`))),
  ]);
  return { port, pid: child.pid!, stop: () => void child.kill() };
}

async function serveBare(): Promise<number> {
  const headers = { 'content-type': 'text/html; charset=utf-8', 'content-length': BODY.length };
  const server = http.createServer((_request, response) => {
    response.writeHead(200, headers);
    response.end(BODY);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function serveEdge(dir: string, app_port: number): Promise<number> {
  const objects = new MemoryObjects(dir);
  const feed = new MemoryFeed();
  feed.rows = [
    await staticRoute(objects, { 'index.html': BODY }, { slug: 'site' }),
    appRoute([{ id: 'ins_1', host: '127.0.0.1', port: app_port }], { slug: 'app' }),
  ];
  const log = (): void => {};
  const edge = await startEdge({ host: '127.0.0.1', port: 0, feed, objects, base_domain: 'localhost', log });
  return edge.port;
}

if (process.argv[1] === SELF) {
  const [role, dir, app_port] = process.argv.slice(2);
  if (role === undefined) await run();
  else {
    process.once('disconnect', () => process.exit());
    process.send!(role === 'bare' ? await serveBare() : await serveEdge(dir!, Number(app_port)));
  }
}

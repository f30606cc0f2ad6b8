import { type IncomingMessage, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type {
  BootSource,
  Drive,
  InstanceInfo,
  Logger,
  MachineConfiguration,
  Metrics,
  NetworkInterface,
  RateLimiter,
  Serial,
  SnapshotCreate,
  SnapshotLoad,
  Vsock,
} from './api.ts';

/**
 * Firecracker's API: HTTP over a Unix socket, one connection per request. An order of calls that Firecracker does not
 * allow (a drive after the start, a snapshot of what is not paused) comes back as its own words.
 */
export interface FirecrackerClient {
  /** GET /: who answers, and its state. */
  describe(): Promise<InstanceInfo>;
  version(): Promise<string>;
  machineConfig(): Promise<MachineConfiguration>;
  setMachineConfig(config: MachineConfiguration): Promise<void>;
  setBootSource(source: BootSource): Promise<void>;
  putDrive(drive: Drive): Promise<void>;
  /** After the start: another file behind the same drive. */
  replaceDrive(drive_id: string, path_on_host: string): Promise<void>;
  putNetworkInterface(network: NetworkInterface): Promise<void>;
  setVsock(vsock: Vsock): Promise<void>;
  setEntropy(entropy: { rate_limiter?: RateLimiter }): Promise<void>;
  setSerial(serial: Serial): Promise<void>;
  setLogger(logger: Logger): Promise<void>;
  setMetrics(metrics: Metrics): Promise<void>;
  start(): Promise<void>;
  sendCtrlAltDel(): Promise<void>;
  flushMetrics(): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  createSnapshot(snapshot: SnapshotCreate): Promise<void>;
  loadSnapshot(snapshot: SnapshotLoad): Promise<void>;
  /** Waits until the process has opened its socket and answers; rejects when `gone` says that it has ended. */
  ready(o: { timeout_ms: number; gone: () => string | null }): Promise<InstanceInfo>;
}

export interface ClientOptions {
  /** At most 107 bytes (../short-path.ts). */
  socket_path: string;
  /** Per request. Default 5000. */
  timeout_ms?: number;
  /** For the requests that write or read a whole guest memory. Default 60000. */
  snapshot_timeout_ms?: number;
}

export type FaultKind =
  /** Firecracker said no; `fault` has its words. */
  | 'refused'
  /** No answer in time: the process hangs. */
  | 'timeout'
  /** Nobody listens, or the connection broke: the process is not there or died. */
  | 'gone'
  /** An answer that is not Firecracker's. */
  | 'nonsense';

export class FirecrackerError extends Error {
  override name = 'FirecrackerError';
  readonly kind: FaultKind;
  /** `PUT /boot-source`. */
  readonly call: string;
  readonly status: number | null;
  readonly fault: string | null;

  constructor(kind: FaultKind, call: string, message: string, status: number | null, fault: string | null) {
    super(message);
    this.kind = kind;
    this.call = call;
    this.status = status;
    this.fault = fault;
  }
}

/** Firecracker refuses bodies above 51200 bytes; answers of the calls made here have a few hundred. */
const BODY_BYTES = 51_200;
const ANSWER_BYTES = 256 * 1024;
const FAULT_CHARACTERS = 2000;
/** Firecracker takes letters, digits and underscores in the ids of drives and interfaces. */
const RESOURCE_ID = /^[A-Za-z0-9_]{1,64}$/;

const INSTANCE_INFO = z.object({
  id: z.string(),
  app_name: z.string(),
  state: z.enum(['Not started', 'Running', 'Paused']),
  vmm_version: z.string(),
});
const VERSION = z.object({ firecracker_version: z.string() });
const MACHINE_CONFIG = z.object({
  vcpu_count: z.number(),
  mem_size_mib: z.number(),
  smt: z.boolean().optional(),
  track_dirty_pages: z.boolean().optional(),
});
const FAULT = z.object({ fault_message: z.string() });

type Method = 'GET' | 'PUT' | 'PATCH';

export function firecrackerClient(o: ClientOptions): FirecrackerClient {
  const timeout_ms = o.timeout_ms ?? 5000;
  const snapshot_timeout_ms = o.snapshot_timeout_ms ?? 60_000;

  async function call(method: Method, path: string, body: unknown, patience_ms: number): Promise<string> {
    const name = `${method} ${path}`;
    const text = body === undefined ? null : JSON.stringify(body);
    if (text !== null && Buffer.byteLength(text) > BODY_BYTES)
      throw new Error(
        `${name}: ${Buffer.byteLength(text)} bytes are more than Firecracker takes (${BODY_BYTES})`,
      );
    const answer = await exchange(o.socket_path, { method, path, text, timeout_ms: patience_ms });
    if (answer.status >= 200 && answer.status < 300) return answer.text;
    const fault = readFault(answer.text);
    const why = fault ?? `status ${answer.status} without a reason`;
    throw new FirecrackerError('refused', name, `Firecracker refused ${name}: ${why}`, answer.status, fault);
  }
  async function read<T>(path: string, schema: z.ZodType<T>): Promise<T> {
    const text = await call('GET', path, undefined, timeout_ms);
    const parsed = schema.safeParse(parseJson(text));
    if (parsed.success) return parsed.data;
    const message = `the answer to GET ${path} is not Firecracker's: ${z.prettifyError(parsed.error)}`;
    throw new FirecrackerError('nonsense', `GET ${path}`, message, 200, null);
  }
  async function send(method: Method, path: string, body: unknown, patience_ms = timeout_ms): Promise<void> {
    await call(method, path, body, patience_ms);
  }
  const act = (action_type: string) => send('PUT', '/actions', { action_type });
  const describe = () => read('/', INSTANCE_INFO);

  return {
    describe,
    version: async () => (await read('/version', VERSION)).firecracker_version,
    machineConfig: () => read('/machine-config', MACHINE_CONFIG),
    setMachineConfig: (config) => send('PUT', '/machine-config', config),
    setBootSource: (source) => send('PUT', '/boot-source', source),
    putDrive: async (drive) => send('PUT', `/drives/${resourceId(drive.drive_id)}`, drive),
    replaceDrive: async (drive_id, path_on_host) =>
      send('PATCH', `/drives/${resourceId(drive_id)}`, { drive_id, path_on_host }),
    putNetworkInterface: async (network) =>
      send('PUT', `/network-interfaces/${resourceId(network.iface_id)}`, network),
    setVsock: (vsock) => send('PUT', '/vsock', vsock),
    setEntropy: (entropy) => send('PUT', '/entropy', entropy),
    setSerial: (serial) => send('PUT', '/serial', serial),
    setLogger: (logger) => send('PUT', '/logger', logger),
    setMetrics: (metrics) => send('PUT', '/metrics', metrics),
    start: () => act('InstanceStart'),
    sendCtrlAltDel: () => act('SendCtrlAltDel'),
    flushMetrics: () => act('FlushMetrics'),
    pause: () => send('PATCH', '/vm', { state: 'Paused' }),
    resume: () => send('PATCH', '/vm', { state: 'Resumed' }),
    createSnapshot: (snapshot) => send('PUT', '/snapshot/create', snapshot, snapshot_timeout_ms),
    loadSnapshot: (snapshot) => send('PUT', '/snapshot/load', snapshot, snapshot_timeout_ms),
    ready: (wait) => untilReady(describe, wait),
  };
}

async function untilReady(
  describe: () => Promise<InstanceInfo>,
  wait: { timeout_ms: number; gone: () => string | null },
): Promise<InstanceInfo> {
  const give_up_at = performance.now() + wait.timeout_ms;
  for (let pause_ms = 2; ; pause_ms = Math.min(pause_ms * 2, 50)) {
    const gone = wait.gone();
    if (gone !== null)
      throw new FirecrackerError(
        'gone',
        'GET /',
        `Firecracker ended before it answered: ${gone}`,
        null,
        null,
      );
    try {
      return await describe();
    } catch (error) {
      const absent = error instanceof FirecrackerError && error.kind === 'gone';
      if (!absent || performance.now() > give_up_at) throw error;
    }
    await sleep(pause_ms);
  }
}

interface Exchange {
  method: Method;
  path: string;
  text: string | null;
  timeout_ms: number;
}

/** One request, one connection, one deadline for all of it; rejects with a `FirecrackerError`. */
function exchange(socketPath: string, o: Exchange): Promise<{ status: number; text: string }> {
  const name = `${o.method} ${o.path}`;
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const fail = (kind: FaultKind, message: string) =>
    reject(new FirecrackerError(kind, name, message, null, null));
  const headers: Record<string, string | number> = { accept: 'application/json' };
  if (o.text !== null) {
    // Firecracker knows no chunked bodies.
    headers['content-type'] = 'application/json';
    headers['content-length'] = Buffer.byteLength(o.text);
  }
  const call = request({
    socketPath,
    path: o.path,
    method: o.method,
    headers,
    agent: false,
    host: 'localhost',
  });
  const timer = setTimeout(() => {
    fail('timeout', `Firecracker did not answer ${name} within ${o.timeout_ms} ms`);
    call.destroy();
  }, o.timeout_ms);
  call.on('response', (answer) => {
    readAnswer(answer).then(
      (text) => resolve({ status: answer.statusCode ?? 0, text }),
      (error: Error) => fail('nonsense', `the answer to ${name} could not be read: ${error.message}`),
    );
  });
  call.on('error', (error: NodeJS.ErrnoException) => {
    const absent = error.code === 'ENOENT' || error.code === 'ECONNREFUSED';
    if (error.code?.startsWith('HPE_'))
      fail('nonsense', `the answer to ${name} is not HTTP: ${error.message}`);
    else if (absent) fail('gone', `nobody listens on Firecracker's socket (${error.code})`);
    else fail('gone', `the connection to Firecracker broke during ${name}: ${error.message}`);
  });
  call.end(o.text ?? undefined);
  return promise.finally(() => clearTimeout(timer));
}

async function readAnswer(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES) throw new Error(`it has more than ${ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function readFault(text: string): string | null {
  const parsed = FAULT.safeParse(parseJson(text));
  return parsed.success ? parsed.data.fault_message.slice(0, FAULT_CHARACTERS) : null;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function resourceId(id: string): string {
  if (!RESOURCE_ID.test(id))
    throw new Error(
      `${JSON.stringify(id)} is no Firecracker id: letters, digits and underscores, at most 64`,
    );
  return id;
}

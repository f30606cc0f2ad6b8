/**
 * A fake of Firecracker, for validation only: it answers the API on a Unix socket, judges every request and its own
 * answers by Firecracker's document (where that is at hand), and keeps the order of calls the real one insists on.
 * It runs no guest. Whether Kiln works with a real Firecracker is decided by the self-test, on machines that have one.
 */
import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { resolve } from 'node:path';
import type { ApiDocument } from './openapi.ts';

export interface Fault {
  /** `PUT /drives/root`; `*` for every call. */
  on: string;
  do: 'refuse' | 'hang' | 'die' | 'garbage' | 'flood' | 'mute';
  message?: string;
}

export interface FakeOptions {
  document: ApiDocument | null;
  id: string;
  /** What absolute paths begin at: the jail, or ''. */
  root: string;
  cwd: string;
  faults?: readonly Fault[];
  on_start?: (config: FakeConfig) => void;
  on_resume?: (config: FakeConfig) => void;
  on_ctrl_alt_del?: () => void;
  die?: () => void;
  /** After every call, before its answer is sent. */
  on_call?: () => void;
}

/** What was configured, by path of the API. */
export type FakeConfig = Map<string, Record<string, unknown>>;

export interface Fake {
  server: Server;
  /** `PUT /boot-source`, in order. */
  calls: string[];
  /** What the document says is wrong with requests, or with this fake's answers. */
  violations: string[];
  config: FakeConfig;
  state(): State;
}

type State = 'Not started' | 'Running' | 'Paused';
type Answer = { status: number; body?: unknown };

const AFTER_START = 'The requested operation is not supported after starting the microVM.';
const BEFORE_START = 'The requested operation is not supported before starting the microVM.';
const MAX_BODY_BYTES = 51_200;

class Refusal extends Error {}

export function makeFake(o: FakeOptions): Fake {
  const calls: string[] = [];
  const violations: string[] = [];
  const config: FakeConfig = new Map();
  const machine = new FakeMachine(o, config);

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [method, path] = [request.method ?? '', request.url ?? ''];
    const call = `${method} ${path}`;
    const text = await readBody(request);
    const body = text === '' ? undefined : JSON.parse(text);
    calls.push(call);
    const fault = o.faults?.find((one) => one.on === call || one.on === '*');
    if (fault?.do === 'hang') return;
    if (fault?.do === 'die') return o.die === undefined ? void request.socket.destroy() : o.die();
    if (fault?.do === 'garbage') return void request.socket.end('this is not HTTP\r\n\r\n');
    if (fault?.do === 'flood') return void response.end(Buffer.alloc(1024 * 1024, 'x'));
    const wrong = (o.document?.request(method, path, body) ?? []).map((why) => `${call}: ${why}`);
    violations.push(...wrong);
    const answer = wrong.length > 0 ? refusal(wrong.join('; ')) : machine.answer(method, path, body, fault);
    if (fault?.do === 'mute') return void response.writeHead(500).end();
    for (const why of o.document?.answer(method, path, answer.status, answer.body) ?? [])
      violations.push(`answer to ${call}: ${why}`);
    o.on_call?.();
    response.statusCode = answer.status;
    if (answer.body === undefined) return void response.end();
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer.body));
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: Error) => {
      violations.push(`${request.method} ${request.url}: ${error.message}`);
      response.writeHead(400).end(JSON.stringify({ fault_message: error.message }));
    });
  });
  return { server, calls, violations, config, state: () => machine.state };
}

async function readBody(request: IncomingMessage): Promise<string> {
  if (request.headers['transfer-encoding'] !== undefined)
    throw new Error('Firecracker knows no chunked bodies');
  let text = '';
  for await (const chunk of request) text += chunk;
  if (text.length > MAX_BODY_BYTES) throw new Error('Request payload is too large');
  return text;
}

const refusal = (fault_message: string): Answer => ({ status: 400, body: { fault_message } });

/** The order of things: configuration, start (or a snapshot in place of both), pause, resume. */
class FakeMachine {
  readonly o: FakeOptions;
  readonly config: FakeConfig;
  state: State = 'Not started';
  /** Something that belongs to a boot was configured: no snapshot can be loaded any more. */
  boot_path = false;

  constructor(o: FakeOptions, config: FakeConfig) {
    this.o = o;
    this.config = config;
  }

  answer(method: string, path: string, body: Record<string, unknown>, fault: Fault | undefined): Answer {
    if (fault?.do === 'refuse') return refusal(fault.message ?? 'refused by the test');
    try {
      if (method === 'GET') return { status: 200, body: this.read(path) };
      if (path === '/actions') this.act(String(body.action_type));
      else if (path === '/vm') this.switchTo(String(body.state));
      else if (path === '/snapshot/create') this.snapshot(body);
      else if (path === '/snapshot/load') this.load(body);
      else if (method === 'PATCH') this.patch(path, body);
      else this.configure(path, body);
      return { status: 204 };
    } catch (error) {
      if (error instanceof Refusal) return refusal(error.message);
      throw error;
    }
  }

  read(path: string): unknown {
    if (path === '/version') return { firecracker_version: '1.0.0-fake' };
    if (path === '/machine-config')
      return { vcpu_count: 1, mem_size_mib: 128, smt: false, ...this.config.get('/machine-config') };
    return { id: this.o.id, app_name: 'Firecracker', state: this.state, vmm_version: '1.0.0-fake' };
  }

  /** PUT of what a VM is made of. */
  configure(path: string, body: Record<string, unknown>): void {
    if (this.state !== 'Not started') throw new Refusal(AFTER_START);
    const id = path.split('/')[2];
    if (id !== undefined && id !== (body.drive_id ?? body.iface_id))
      throw new Refusal('The id from the path does not match the id from the body!');
    if (id !== undefined && !/^\w+$/.test(id))
      throw new Refusal('API Resource IDs can only contain alphanumeric characters and underscores.');
    for (const key of ['kernel_image_path', 'initrd_path', 'path_on_host'])
      this.mustExist(body[key], body.is_read_only === false);
    if (body.smt === true && Number(body.vcpu_count) % 2 !== 0)
      throw new Refusal('The vCPU number is invalid! It must be even with SMT.');
    if (path !== '/logger' && path !== '/metrics') this.boot_path = true;
    this.config.set(path, body);
  }

  patch(path: string, body: Record<string, unknown>): void {
    if (this.state === 'Not started') throw new Refusal(BEFORE_START);
    if (!this.config.has(path)) throw new Refusal(`no such device: ${path}`);
    this.mustExist(body.path_on_host, false);
    this.config.set(path, { ...this.config.get(path), ...body });
  }

  act(action: string): void {
    if (action === 'InstanceStart') {
      if (this.state !== 'Not started') throw new Refusal(AFTER_START);
      if (!this.config.has('/boot-source'))
        throw new Refusal('Cannot start microvm without kernel configuration.');
      this.state = 'Running';
      this.o.on_start?.(this.config);
      return;
    }
    if (this.state === 'Not started') throw new Refusal(BEFORE_START);
    if (action === 'SendCtrlAltDel') this.o.on_ctrl_alt_del?.();
  }

  switchTo(state: string): void {
    if (this.state === 'Not started') throw new Refusal(BEFORE_START);
    const resumed = this.state === 'Paused' && state === 'Resumed';
    this.state = state === 'Paused' ? 'Paused' : 'Running';
    if (resumed) this.o.on_resume?.(this.config);
  }

  snapshot(body: Record<string, unknown>): void {
    if (this.state === 'Not started') throw new Refusal(BEFORE_START);
    if (this.state !== 'Paused')
      throw new Refusal('Create snapshot error: the microVM must be paused to be saved');
    writeFileSync(this.path(body.snapshot_path), JSON.stringify([...this.config]));
    writeFileSync(this.path(body.mem_file_path), 'guest memory');
  }

  load(body: Record<string, unknown>): void {
    if (this.state !== 'Not started') throw new Refusal(AFTER_START);
    if (this.boot_path)
      throw new Refusal(
        'Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.',
      );
    const backend = body.mem_backend as { backend_path?: string } | undefined;
    if ((backend === undefined) === (body.mem_file_path === undefined))
      throw new Refusal('exactly one of mem_backend and mem_file_path');
    this.mustExist(backend?.backend_path ?? body.mem_file_path, false);
    for (const [path, value] of savedConfig(this.path(body.snapshot_path))) {
      this.mustExist(value.path_on_host, value.is_read_only === false);
      this.config.set(path, value);
    }
    const override = body.vsock_override as { uds_path: string } | undefined;
    if (override !== undefined) this.config.set('/vsock', { ...this.config.get('/vsock'), ...override });
    this.o.on_start?.(this.config);
    this.state = 'Paused';
    if (body.resume_vm === true) this.switchTo('Resumed');
  }

  path(value: unknown): string {
    const path = String(value);
    return path.startsWith('/') ? `${this.o.root}${path}` : resolve(this.o.cwd, path);
  }

  mustExist(value: unknown, writable: boolean): void {
    if (value === undefined) return;
    try {
      accessSync(this.path(value), writable ? constants.R_OK | constants.W_OK : constants.R_OK);
    } catch (error) {
      throw new Refusal(`Unable to open ${String(value)}: ${(error as NodeJS.ErrnoException).code}`);
    }
  }
}

function savedConfig(path: string): [string, Record<string, unknown>][] {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Refusal(`Load snapshot error: ${(error as Error).message}`);
  }
}

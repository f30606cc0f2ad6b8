/**
 * What every runtime of images holds, asked of the real one: instances answer on their port with their own environment and
 * user, end in every way, stay within limits, reach nothing of the host, outlive their engine and are adopted.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { after, afterEach, it } from 'node:test';
import type { ImageRunConfig } from '../../domain/image.ts';
import type { Limits, Machine, MachineExit } from '../driver.ts';
import type { MachineImage } from '../image.ts';
import type { ImageRuntime, InstanceSpec } from '../runtime.ts';
import { until } from './harness.ts';

const MIB = 1024 * 1024;
const PORT = 3000;
const LIMITS: Limits = {
  ...{ time_ms: null, memory_bytes: 512 * MIB, processes: 100, disk_bytes: 256 * MIB },
  ...{ log_bytes: 16 * MIB, on_log_limit: 'drop' },
};
const SERVER = `
process.on('SIGTERM', () => { console.log('bye'); process.exit(0); });
require('http').createServer((q, s) => { console.log('asked', q.url); s.end(process.env.WORD + ' ' + process.getuid()); })
  .listen(process.env.PORT, () => console.log('ready'));`;

export interface RuntimeBench {
  /** A runtime on the one data folder; called anew it stands for the next engine's. */
  open(): ImageRuntime;
  /** An image with Node and a POSIX shell in it. */
  image(config: ImageRunConfig): Promise<MachineImage>;
}

interface Started {
  spec: InstanceSpec;
  machine: Machine;
  output(): string;
}

/** The cases, inside a `describe` of the driver. */
export function instanceCases(bench: RuntimeBench): void {
  const opened: ImageRuntime[] = [];
  const open = () => {
    const one = bench.open();
    opened.push(one);
    return one;
  };
  const runtime = open();
  // What a failed test left must not fail the next.
  afterEach(async () => {
    await open().sweep(new Set());
  });
  after(async () => {
    for (const one of opened) await one.release();
  });

  async function start(
    config: ImageRunConfig,
    o: Partial<InstanceSpec> = {},
    on: ImageRuntime = runtime,
  ): Promise<Started> {
    let text = '';
    const spec: InstanceSpec = {
      ...{ id: `ins_${randomBytes(6).toString('hex')}`, deployment_id: 'dep_contract' },
      ...{ image: await bench.image(config), command: null, env: { PORT: String(PORT), WORD: "it's" } },
      ...{ host_port: await freePort(), guest_port: PORT, limits: LIMITS, read_only_root: false },
      on_output(_, chunk) {
        text += chunk.toString();
      },
      ...o,
    };
    return { spec, machine: await on.start(spec), output: () => text };
  }
  async function run(script: string, o: Partial<InstanceSpec> = {}, config: ImageRunConfig = {}) {
    const started = await start({ ...config, Cmd: ['/bin/sh', '-c', script] }, o);
    const exit: MachineExit = await started.machine.exited;
    return { exit, output: started.output() };
  }
  const ask = async ({ host_port }: InstanceSpec, path: string) => {
    const answer = await fetch(`http://127.0.0.1:${host_port}${path}`, {
      signal: AbortSignal.timeout(10_000),
    });
    return await answer.text();
  };
  const server = (o: Partial<InstanceSpec> = {}, on?: ImageRuntime) =>
    start({ Cmd: ['node', '-e', SERVER], User: '1234:1234' }, o, on);
  const isReady = (one: Started) => until('it is ready', () => one.output().includes('ready'));

  it('contract: serves with its own environment and user, is measured, and ends on TERM with its last words', async () => {
    const one = await server();
    await isReady(one);
    assert.equal(await ask(one.spec, '/x'), "it's 1234");
    const ports = (await one.machine.listening()).map(({ port }) => port);
    assert.deepEqual(ports, [PORT]);
    const usage = await one.machine.usage();
    assert.ok(usage.processes >= 1 && usage.memory_bytes > 5 * MIB, JSON.stringify(usage));
    const exit = await one.machine.stop(60_000);
    assert.deepEqual([exit.reason, exit.exit_code, exit.signal], ['killed', 0, null]);
    assert.match(one.output(), /^ready\nasked \/x\nbye\n$/);
    await assert.rejects(ask(one.spec, '/'));
  });

  it('contract: reports exits and signals; a command replaces the image’s own', async () => {
    assert.deepEqual(((e) => [e.reason, e.exit_code])((await run('exit 7')).exit), ['exited', 7]);
    assert.equal((await run('kill -SEGV $$')).exit.signal, 'SIGSEGV');
    const replaced = await run('echo own', { command: 'echo other $PORT' });
    assert.equal(replaced.output, `other ${PORT}\n`);
  });

  it('contract: what ignores TERM is killed when the grace is over', async () => {
    const one = await start({ Cmd: ['/bin/sh', '-c', 'trap "" TERM; echo up; while :; do sleep 0.1; done'] });
    await until('it is up', () => one.output().includes('up'));
    const exit = await one.machine.stop(500);
    assert.deepEqual([exit.reason, exit.exit_code === 0], ['killed', false], JSON.stringify(exit));
  });

  it('contract: holds limits on memory, processes, disk and log', async () => {
    const eat = `node -e "const a=[];setInterval(()=>a.push(Buffer.alloc(16e6,1)),5)"`;
    const memory = await run(eat, { limits: { ...LIMITS, memory_bytes: 128 * MIB } });
    assert.equal(memory.exit.reason, 'out_of_memory');
    const bomb = 'b() { [ $1 -gt 10 ] && exec sleep 60; b $(($1 + 1)) & b $(($1 + 1)) & wait; }; b 0';
    const processes = await run(bomb, { limits: { ...LIMITS, processes: 40 } });
    assert.equal(processes.exit.reason, 'too_many_processes');
    const fill =
      'i=0; while :; do i=$((i+1)); head -c 8388608 /dev/zero > /fill_$i || exit; sleep 0.05; done';
    const disk = await run(fill, { limits: { ...LIMITS, disk_bytes: 64 * MIB } });
    assert.equal(disk.exit.reason, 'out_of_disk');
    const flood =
      'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i of many that are printed"; done; exit 3';
    const log = await run(flood, { limits: { ...LIMITS, log_bytes: 10_000 } });
    assert.equal(log.exit.exit_code, 3);
    assert.ok(log.output.length < 11_000, String(log.output.length));
  });

  it('contract: a read-only root leaves /tmp', async () => {
    const { output } = await run('touch /x || echo refused; echo 1 > /tmp/x && echo tmp', {
      read_only_root: true,
    });
    // Of two streams nobody knows the order.
    assert.match(output, /^refused\ntmp$/m);
  });

  it('contract: reaches neither the loopback of the host nor the metadata address', async (t) => {
    const bait = createServer((socket) => socket.end('ESCAPED')).listen(0, '127.0.0.1');
    t.after(() => bait.close());
    await once(bait, 'listening');
    const { port } = bait.address() as AddressInfo;
    // The last three are what QEMU and Docker call the host.
    const hosts = ['127.0.0.1', '169.254.169.254', '10.0.2.2', '10.0.2.4', '172.17.0.1'];
    const attempts = hosts.map(
      (host) =>
        `require('net').connect({host:'${host}',port:${port}}).on('data',d=>console.log(''+d)).on('error',()=>{});`,
    );
    const script = `node -e "${attempts.join('')}setTimeout(()=>{console.log('tried');process.exit()},3000)"`;
    assert.equal((await run(script)).output, 'tried\n');
  });

  it('contract: goes on without its engine, and is adopted by the next; its log continues', async () => {
    const engine = open();
    const one = await server({}, engine);
    await isReady(one);
    await ask(one.spec, '/before');
    await until('its log was read', () => one.output().includes('/before'));
    await engine.release();
    const logs_since = new Date();
    await ask(one.spec, '/meanwhile');
    let seen = '';
    const { id, host_port, guest_port, limits } = one.spec;
    const on_output = (_: string, chunk: Buffer) => {
      seen += chunk.toString();
    };
    const of = { id, host_port, guest_port, limits, on_output, logs_since };
    assert.deepEqual(await runtime.sweep(new Set([id])), []);
    const machine = await runtime.adopt(of);
    assert.equal(machine?.pid, one.machine.pid, 'not restarted');
    await ask(one.spec, '/after');
    await until('its log goes on', () => seen.includes('/after'));
    assert.equal(seen, 'asked /meanwhile\nasked /after\n');
    assert.equal((await machine!.stop(60_000)).exit_code, 0);
    assert.equal(await runtime.adopt(of), null);
  });

  it('contract: sweeps what nobody keeps, and nothing else', async () => {
    const engine = open();
    const [kept, lost] = [await server({}, engine), await server({ deployment_id: 'dep_other' }, engine)];
    for (const one of [kept, lost]) await isReady(one);
    await engine.release();
    assert.deepEqual(await runtime.sweep(new Set([kept.spec.id])), [lost.spec.id]);
    await assert.rejects(ask(lost.spec, '/'));
    assert.equal(await ask(kept.spec, '/'), "it's 1234");
    assert.deepEqual(await runtime.sweep(new Set()), [kept.spec.id]);
    await assert.rejects(ask(kept.spec, '/'));
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

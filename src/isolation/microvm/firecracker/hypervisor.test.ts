import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { findProgram } from '../../program.ts';
import { rootDrives } from '../drives.ts';
import type { Vm, VmNetwork, VmRecord, VmSpec } from '../hypervisor.ts';
import { type FirecrackerHypervisor, type FirecrackerOptions, firecrackerHypervisor } from './hypervisor.ts';
import { CHANNEL_PORTS, CONSOLE_NAME, EGRESS_PORT } from './launch.ts';
import { DOCUMENT_ABSENT, loadApiDocument } from './testing/openapi.ts';
import { type ProgramConfig, writePrograms } from './testing/program.ts';
import { takeSnapshot } from './warm.ts';

/** Against the fake of testing/: what Kiln does around a Firecracker, not what a Firecracker does. */
const MIB = 1024 * 1024;
const ROOT = process.getuid?.() === 0;
let dir: string;
let count = 0;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kiln-vm-'));
  await writeFile(join(dir, 'vmlinux'), '\x7fELF and a kernel');
  await writeFile(join(dir, 'initramfs'), 'initramfs');
  for (const name of ['root', 'app']) await writeFile(join(dir, `${name}.squashfs`), Buffer.alloc(512));
});
after(() => rm(dir, { recursive: true, force: true }));

interface Bench {
  hypervisor: FirecrackerHypervisor;
  options: FirecrackerOptions;
  spec: VmSpec;
  report(): Promise<{ calls: string[]; violations: string[]; config: [string, Record<string, unknown>][] }>;
}

async function bench(
  t: TestContext,
  config: Omit<ProgramConfig, 'report'>,
  o: { network?: VmNetwork; jailed?: boolean; outbound_socket?: string; channels?: VmSpec['channels'] } = {},
): Promise<Bench> {
  const place = join(dir, String(count++));
  const vm_dir = join(place, `mch_${'x'.repeat(90)}`);
  await mkdir(vm_dir, { recursive: true });
  await writeFile(join(vm_dir, 'output.img'), Buffer.alloc(512));
  const report = join(place, 'report.json');
  const { binary, jailer } = writePrograms(place, { ...config, report });
  t.after(() => rm(place, { recursive: true, force: true }));
  const spec: VmSpec = {
    id: 'mch_1',
    dir: vm_dir,
    kernel: join(dir, 'vmlinux'),
    initramfs: join(dir, 'initramfs'),
    cmdline: ['kiln.drives=root,root2,output'],
    drives: [
      ...rootDrives([join(dir, 'root.squashfs'), join(dir, 'app.squashfs')]),
      { name: 'output', path: join(vm_dir, 'output.img'), read_only: false },
    ],
    channels: o.channels ?? [{ name: 'control', to: 'socket' }],
    network: o.network ?? { kind: 'none' },
    ...{ vcpus: 2, memory_bytes: 512 * MIB, max_file_bytes: 1024 * MIB },
    user: o.jailed ? { uid: 61_000, gid: 61_000 } : null,
    ...{ marks: { KILN_MACHINE: 'mch_1' }, limit_arguments: [], survives_engine: false },
  };
  const options: FirecrackerOptions = {
    ...{ binary, jailer: o.jailed ? jailer : null, search_path: '', kernel_dir: join(place, 'kernels') },
    ...{ outbound_socket: o.outbound_socket ?? null, kvm_device: '/dev/null' },
  };
  const hypervisor = firecrackerHypervisor(options);
  return { hypervisor, options, spec, report: async () => JSON.parse(await readFile(report, 'utf8')) };
}

async function start(t: TestContext, b: Bench): Promise<Vm> {
  const vm = await b.hypervisor.start(b.spec);
  t.after(async () => {
    vm.kill();
    await vm.exited;
  });
  return vm;
}

async function heard(stream: Duplex): Promise<string> {
  const [chunk] = (await once(stream, 'data')) as [Buffer];
  return chunk.toString();
}

async function until(what: () => Promise<boolean>): Promise<void> {
  const give_up_at = performance.now() + 5000;
  while (!(await what())) {
    assert.ok(performance.now() < give_up_at, 'it did not happen within 5 s');
    await sleep(20);
  }
}

for (const jailed of [false, true])
  describe(jailed ? 'a VM with jailer (fake)' : 'a VM without jailer (fake)', {
    skip: jailed && !ROOT && 'needs root',
  }, () => {
    it('is configured by the document, started, spoken to, and gone', async (t) => {
      const b = await bench(t, { guest: { calls: { 1: '{"event":"booted"}\n' } } }, { jailed });
      const vm = await start(t, b);
      const control = await vm.open('control');
      assert.equal(await heard(control), '{"event":"booted"}\n');
      control.write('go\n');
      await until(async () => /port 1: go/.test(await vm.console()));
      assert.match(await vm.console(), /Linux version .*fake/);

      const { calls, violations, config } = await b.report();
      const answers = new Map(config);
      assert.deepEqual(violations, []);
      assert.deepEqual(
        calls.filter((call) => call.startsWith('PUT')),
        [
          ...['PUT /machine-config', 'PUT /boot-source'],
          ...['PUT /drives/root', 'PUT /drives/root2', 'PUT /drives/output'],
          ...['PUT /vsock', 'PUT /entropy', 'PUT /actions'],
        ],
      );
      const at = jailed ? '/' : '';
      assert.deepEqual(answers.get('/boot-source'), {
        ...{ kernel_image_path: `${at}fc-kernel`, initrd_path: `${at}fc-initramfs` },
        boot_args:
          'console=ttyS0 quiet reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd kiln.drives=root,root2,output',
      });
      assert.deepEqual(answers.get('/drives/output'), {
        ...{ drive_id: 'output', path_on_host: `${at}fc-drive-output` },
        ...{ is_root_device: false, is_read_only: false },
      });
      assert.equal(existsSync(join(b.spec.dir, 'jail')), jailed);

      vm.kill();
      const end = await vm.exited;
      assert.deepEqual([end.exit_code, end.signal], [null, 'SIGKILL']);
      assert.equal(existsSync(join(b.spec.dir, 'jail')), false);
      await assert.rejects(vm.open('control'), /the VM has ended/);
      vm.kill();
      if (loadApiDocument() === null) t.diagnostic(`not checked against the document: ${DOCUMENT_ABSENT}`);
    });

    it('reports how it ended, in its own words', async (t) => {
      const b = await bench(t, { guest: { exit: { after_ms: 50, code: 0 } } }, { jailed });
      assert.deepEqual(await (await start(t, b)).exited, { exit_code: 0, signal: null, message: '' });
    });

    it('a call that is refused: nothing is left, the error says which and why', async (t) => {
      const faults = [{ on: 'PUT /drives/output', do: 'refuse' as const, message: 'disk is too odd' }];
      const b = await bench(t, { faults }, { jailed });
      await assert.rejects(
        b.hypervisor.start(b.spec),
        /VM was not started: Firecracker refused PUT \/drives\/output: disk is too odd/,
      );
      assert.equal(existsSync(join(b.spec.dir, 'jail')), false);
      assert.ok(!(await readdir(b.spec.dir)).some((name) => name.startsWith('v.sock')));
    });

    it('a Firecracker that dies while it is configured', async (t) => {
      const b = await bench(t, { faults: [{ on: 'PUT /vsock', do: 'die' }] }, { jailed });
      await assert.rejects(
        b.hypervisor.start(b.spec),
        /broke during PUT \/vsock.*It said: .*it was told to die/s,
      );
    });
  });

describe('the network of a VM (fake)', () => {
  it('the guest reaches the proxy, and nothing else is there', async (t) => {
    const socket_path = join(dir, 'egress.sock');
    const proxy = createServer((socket) => socket.once('data', (text) => socket.write(`proxied ${text}`)));
    t.after(() => proxy.close());
    await once(proxy.listen(socket_path), 'listening');
    const b = await bench(
      t,
      { guest: { calls: { [EGRESS_PORT]: 'GET /', 22: 'SSH' } } },
      { network: { kind: 'egress', socket_path } },
    );
    const vm = await start(t, b);
    await until(async () => /port 3128: proxied GET \//.test(await vm.console()));
    assert.match(await vm.console(), /port 22: connect ENOENT/);
    const boot = new Map((await b.report()).config).get('/boot-source');
    assert.match(String(boot?.boot_args), /kiln\.vsock_egress=3128$/);
    vm.kill();
    await vm.exited;
  });

  it('a port of the host leads to the guest; it is free again afterwards', async (t) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port: host_port } = server.address() as AddressInfo;
    await new Promise((done) => server.close(done));
    const network: VmNetwork = { kind: 'forward', host_port, guest_port: 3000, outbound: false };
    const b = await bench(t, { guest: { listens: { 3000: 'hello' } } }, { network });
    const vm = await start(t, b);
    const visitor = connect(host_port, '127.0.0.1');
    visitor.write('world');
    assert.equal(await heard(visitor), 'hello world');
    visitor.destroy();
    const boot = new Map((await b.report()).config).get('/boot-source');
    assert.match(String(boot?.boot_args), /kiln\.vsock_forward=3000$/);
    vm.kill();
    await vm.exited;
    await assert.rejects(once(connect(host_port, '127.0.0.1'), 'connect'), /ECONNREFUSED/);
  });

  it('an instance that needs the world needs a proxy', async (t) => {
    const network: VmNetwork = { kind: 'forward', host_port: 1, guest_port: 3000, outbound: true };
    const b = await bench(t, {}, { network });
    await assert.rejects(b.hypervisor.start(b.spec), /no network card.*outbound_socket/);
  });
});

describe('a VM that outlives the engine (fake)', () => {
  it('keeps what it says in files, and is adopted with its port', async (t) => {
    const socat = findProgram('socat');
    if (socat === null) return t.skip('socat is not installed');
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port: host_port } = server.address() as AddressInfo;
    await new Promise((done) => server.close(done));
    const b = await bench(
      t,
      { guest: { calls: { [CHANNEL_PORTS.stdout]: 'out\n' }, listens: { 3000: 'still here' } } },
      {
        network: { kind: 'forward', host_port, guest_port: 3000, outbound: false },
        channels: [
          { name: 'control', to: 'socket' },
          { name: 'stdout', to: 'file' },
        ],
      },
    );
    const [spec, options] = [{ ...b.spec, survives_engine: true }, b.options];
    const log = join(spec.dir, 'stdout.log');
    const record = await startInAnotherEngine(spec, options);
    t.after(() => endProcesses(spec.dir));
    await until(async () => existsSync(log) && /out/.test(await readFile(log, 'utf8')));
    await assert.rejects(once(connect(host_port, '127.0.0.1'), 'connect'), /ECONNREFUSED/);

    assert.equal(await b.hypervisor.adopt({ ...record, started: '1' }, spec), null);
    const vm = await b.hypervisor.adopt(record, spec);
    assert.ok(vm);
    const visitor = connect(host_port, '127.0.0.1');
    visitor.write('x');
    assert.equal(await heard(visitor), 'still here x');
    visitor.destroy();
    assert.match(await vm.console(), /fake/);
    vm.kill();
    await vm.exited;
    assert.equal(await b.hypervisor.adopt(record, spec), null);
  });
});

/** An engine that starts a VM and is gone. */
async function startInAnotherEngine(spec: VmSpec, options: FirecrackerOptions): Promise<VmRecord> {
  const script = `
    import { firecrackerHypervisor } from ${JSON.stringify(join(import.meta.dirname, 'hypervisor.ts'))};
    const vm = await firecrackerHypervisor(${JSON.stringify(options)}).start(${JSON.stringify(spec)});
    process.stdout.write(JSON.stringify(vm.record), () => process.exit(0));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 20_000,
  });
  return JSON.parse(stdout) as VmRecord;
}

/** As the driver's sweep does by marks: here by the folder they run in. */
async function endProcesses(cwd: string): Promise<void> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const where = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (where.startsWith(cwd)) process.kill(Number(pid), 'SIGKILL');
  }
}

describe('what the host lacks', () => {
  const options = { search_path: '', kernel_dir: '/nonexistent', outbound_socket: null };
  it('is said, and what to install', async (t) => {
    const absent = firecrackerHypervisor({ ...options, binary: 'kiln-no-such-firecracker' });
    const none = await absent.check();
    assert.ok(!none.ok && /not installed/.test(none.reason) && /releases/.test(none.install ?? ''));
    const b = await bench(t, {}, {});
    const { binary, jailer } = writePrograms(join(b.spec.dir, '..'), { report: '/dev/null' });
    const no_kvm = await firecrackerHypervisor({
      ...{ ...options, binary, jailer: null },
      kvm_device: '/nonexistent/kvm',
    }).check();
    assert.ok(!no_kvm.ok && /cannot be opened \(ENOENT\)/.test(no_kvm.reason), JSON.stringify(no_kvm));
    const good = await firecrackerHypervisor({ ...options, binary, jailer, kvm_device: '/dev/null' }).check();
    if (findProgram('socat') === null) {
      assert.ok(!good.ok && /socat/.test(good.reason), JSON.stringify(good));
      return t.skip('socat is not installed: nothing further can be looked at');
    }
    assert.ok(good.ok && /v1.0.0-fake, with jailer/.test(good.detail), JSON.stringify(good));
    await writeFile(jailer, '#!/bin/sh\necho Jailer v0.9\n');
    const odd = await firecrackerHypervisor({ ...options, binary, jailer, kvm_device: '/dev/null' }).check();
    assert.ok(!odd.ok && /belong together/.test(odd.reason), JSON.stringify(odd));
    await writeFile(binary, '#!/bin/sh\necho something else\n');
    const other = await firecrackerHypervisor({
      ...options,
      binary,
      jailer: null,
      kvm_device: '/dev/null',
    }).check();
    assert.ok(!other.ok && /something else/.test(other.reason), JSON.stringify(other));
  });
});

it('a guest that floods its console fills no disk, and its last words are kept (fake)', async (t) => {
  const b = await bench(t, { guest: { noise_bytes: 3 * MIB, calls: { 9: 'x' } } });
  const vm = await start(t, b);
  const size = async () => (await stat(join(b.spec.dir, CONSOLE_NAME))).size;
  await until(async () => (await size()) < MIB && /ENOENT/.test(await vm.console()));
  const text = await vm.console();
  assert.ok(text.length <= 64 * 1024);
  assert.match(text, /noise\n.*port 9: connect ENOENT/s);
});

describe('warm starts (fake)', () => {
  for (const jailed of [false, true])
    it(jailed ? 'with jailer' : 'without jailer', { skip: jailed && !ROOT && 'needs root' }, async (t) => {
      const first = await bench(t, { guest: { console: 'template' } }, { jailed });
      const template = await start(t, first);
      const into = join(dir, `snapshot-${jailed}`);
      const snapshot = await takeSnapshot(first.hypervisor, template, first.spec, into);
      assert.deepEqual((await readdir(into)).sort(), ['memory', 'state']);
      // The VM it was taken from never runs again.
      assert.equal((await template.exited).signal, 'SIGKILL');
      assert.deepEqual((await first.report()).violations, []);

      const clones = await Promise.all([bench(t, {}, { jailed }), bench(t, {}, { jailed })]);
      for (const clone of clones) {
        const vm = await clone.hypervisor.restore(clone.spec, snapshot);
        t.after(() => vm.kill());
        await until(async () => /resumed/.test(await vm.console()));
        const { calls, violations, config } = await clone.report();
        assert.deepEqual(violations, []);
        assert.deepEqual(
          calls.filter((call) => call.startsWith('PUT')),
          ['PUT /snapshot/load'],
        );
        assert.equal(
          new Map(config).get('/drives/output')?.path_on_host,
          `${jailed ? '/' : ''}fc-drive-output`,
        );
        vm.kill();
        await vm.exited;
      }
    });

  it('a snapshot larger than the largest file, or of a VM of another engine, is refused before', async (t) => {
    const b = await bench(t, {});
    const vm = await start(t, b);
    const into = join(dir, 'never');
    const small = { ...b.spec, max_file_bytes: 1 };
    await assert.rejects(takeSnapshot(b.hypervisor, vm, small, into), /limit on files/);
    const other = firecrackerHypervisor(b.options);
    await assert.rejects(takeSnapshot(other, vm, b.spec, into), /this engine started/);
  });

  it('a snapshot that Firecracker does not take: nothing is left', async (t) => {
    const b = await bench(t, { faults: [{ on: 'PUT /snapshot/load', do: 'refuse', message: 'bad CRC' }] });
    await writeFile(join(dir, 'bad'), 'x');
    const snapshot = { state: join(dir, 'bad'), memory: join(dir, 'bad') };
    await assert.rejects(b.hypervisor.restore(b.spec, snapshot), /PUT \/snapshot\/load: bad CRC/);
  });
});

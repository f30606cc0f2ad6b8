import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { type FirecrackerClient, FirecrackerError, firecrackerClient } from './client.ts';
import { type Fake, type Fault, makeFake } from './testing/fake.ts';
import { DOCUMENT_ABSENT, loadApiDocument } from './testing/openapi.ts';

const document = loadApiDocument();
let dir: string;
let socket_count = 0;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kiln-fc-'));
  for (const name of ['vmlinux', 'initramfs', 'root.img', 'scratch.img', 'other.img'])
    await writeFile(join(dir, name), 'x');
});
after(() => rm(dir, { recursive: true, force: true }));

async function withFake(
  t: TestContext,
  faults: Fault[] = [],
): Promise<{ fake: Fake; client: FirecrackerClient }> {
  const fake = makeFake({ document, id: 'test', root: '', cwd: dir, faults });
  const socket_path = join(dir, `api-${socket_count++}.sock`);
  fake.server.listen(socket_path);
  await once(fake.server, 'listening');
  t.after(() => {
    fake.server.close();
    fake.server.closeAllConnections();
  });
  return { fake, client: firecrackerClient({ socket_path, timeout_ms: 400 }) };
}

async function configure(client: FirecrackerClient): Promise<void> {
  await client.setLogger({ log_path: 'vmm.log', level: 'Error', show_level: true });
  await client.setMetrics({ metrics_path: 'metrics.json' });
  await client.setMachineConfig({ vcpu_count: 2, mem_size_mib: 512, smt: false, track_dirty_pages: false });
  await client.setBootSource({
    kernel_image_path: join(dir, 'vmlinux'),
    initrd_path: 'initramfs',
    boot_args: 'console=ttyS0 reboot=k panic=1',
  });
  const limiter = { bandwidth: { size: 1024, refill_time: 100, one_time_burst: 1 } };
  for (const name of ['root', 'scratch'])
    await client.putDrive({
      ...{
        drive_id: name,
        path_on_host: `${name}.img`,
        is_root_device: false,
        is_read_only: name === 'root',
      },
      ...{ cache_type: 'Unsafe', io_engine: 'Sync', rate_limiter: limiter },
    });
  await client.putNetworkInterface({
    iface_id: 'eth0',
    host_dev_name: 'tap0',
    guest_mac: '06:00:AC:10:00:02',
  });
  await client.setVsock({ guest_cid: 3, uds_path: 'v.sock' });
  await client.setEntropy({});
  await client.setSerial({ serial_out_path: 'console.log' });
}

function fault(kind: string, words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof FirecrackerError, String(error));
    assert.equal(error.kind, kind, error.message);
    assert.match(error.message, words);
    return true;
  };
}

describe("Firecracker's API, against a fake", () => {
  it('requests and answers follow its own document', async (t) => {
    if (document === null) return t.skip(DOCUMENT_ABSENT);
    const { fake, client } = await withFake(t);
    assert.equal((await client.describe()).state, 'Not started');
    assert.match(await client.version(), /fake/);
    await configure(client);
    assert.equal((await client.machineConfig()).mem_size_mib, 512);
    await client.start();
    assert.equal((await client.describe()).state, 'Running');
    await client.replaceDrive('scratch', 'other.img');
    await client.flushMetrics();
    await client.sendCtrlAltDel();
    await client.pause();
    const files = { snapshot_path: join(dir, 'state'), mem_file_path: join(dir, 'memory') };
    await client.createSnapshot({ snapshot_type: 'Full', ...files });
    await client.resume();
    assert.deepEqual(fake.violations, []);

    const second = await withFake(t);
    await second.client.setLogger({ log_path: 'vmm.log' });
    await second.client.loadSnapshot({
      snapshot_path: files.snapshot_path,
      mem_backend: { backend_type: 'File', backend_path: files.mem_file_path },
      ...{ resume_vm: true, track_dirty_pages: false, clock_realtime: true },
      vsock_override: { uds_path: 'v2.sock' },
      network_overrides: [{ iface_id: 'eth0', host_dev_name: 'tap1' }],
    });
    assert.equal((await second.client.describe()).state, 'Running');
    assert.deepEqual(second.fake.violations, []);
    t.diagnostic(`document ${document.version}, ${fake.calls.length + second.fake.calls.length} calls`);
  });

  it('the document catches misspelt, missing and impossible values', async (t) => {
    if (document === null) return t.skip(DOCUMENT_ABSENT);
    const wrong = (path: string, body: unknown) => document.request('PUT', path, body).join('; ');
    assert.match(wrong('/machine-config', { vcpu_count: 1, mem_size_mb: 128 }), /mem_size_mib/);
    assert.match(wrong('/machine-config', { vcpu_count: 33, mem_size_mib: 128 }), /<= 32/);
    assert.match(wrong('/vsock', { guest_cid: 2, uds_path: 'x' }), />= 3/);
    assert.match(wrong('/actions', { action_type: 'Start' }), /InstanceStart/);
    assert.match(wrong('/drives/a', { drive_id: 'a', is_root_device: false, read_only: true }), /additional/);
    const bucket = { bandwidth: { size: 1, refill: 1 } };
    assert.match(
      wrong('/drives/a', { drive_id: 'a', is_root_device: false, rate_limiter: bucket }),
      /refill_time/,
    );
    assert.match(wrong('/no-such-path', {}), /no such path/);
    assert.match(document.request('PATCH', '/boot-source', {}).join(), /has no PATCH/);
    assert.match(document.answer('GET', '/', 200, { id: 'x', state: 'Running' }).join(), /app_name/);
    const { fake, client } = await withFake(t);
    await assert.rejects(
      client.setMachineConfig({ vcpu_count: 64, mem_size_mib: 1 }),
      fault('refused', /vcpu_count/),
    );
    assert.equal(fake.violations.length, 1);
  });

  it('an order of calls that Firecracker refuses is an error with its own words', async (t) => {
    const { client } = await withFake(t);
    await assert.rejects(client.start(), fault('refused', /without kernel/));
    await assert.rejects(client.pause(), fault('refused', /before starting/));
    await assert.rejects(client.replaceDrive('root', 'root.img'), fault('refused', /before starting/));
    await configure(client);
    const snapshot = { snapshot_path: join(dir, 's'), mem_file_path: join(dir, 'm') };
    await assert.rejects(
      client.createSnapshot({ snapshot_type: 'Full', ...snapshot }),
      fault('refused', /before/),
    );
    await assert.rejects(
      client.loadSnapshot({
        snapshot_path: 's',
        mem_backend: { backend_type: 'File', backend_path: 'root.img' },
      }),
      fault('refused', /not allowed after configuring boot-specific/),
    );
    await client.start();
    await assert.rejects(client.start(), fault('refused', /after starting/));
    await assert.rejects(client.setVsock({ guest_cid: 3, uds_path: 'v' }), fault('refused', /PUT \/vsock/));
    await assert.rejects(
      client.createSnapshot({ snapshot_type: 'Full', ...snapshot }),
      fault('refused', /paused/),
    );
  });

  it('files that are not there, ids and bodies that Firecracker does not take', async (t) => {
    const { fake, client } = await withFake(t);
    await assert.rejects(
      client.setBootSource({ kernel_image_path: 'gone' }),
      fault('refused', /PUT \/boot-source: .*gone/),
    );
    const drive = { path_on_host: 'root.img', is_root_device: false, is_read_only: true };
    for (const drive_id of ['', 'a-b', '../actions', 'a/b', 'x'.repeat(65)])
      await assert.rejects(client.putDrive({ drive_id, ...drive }), /no Firecracker id/);
    await assert.rejects(
      client.setBootSource({ kernel_image_path: 'x'.repeat(60_000) }),
      /more than Firecracker takes/,
    );
    assert.deepEqual(fake.calls, ['PUT /boot-source']);
  });
});

describe('a Firecracker that misbehaves', () => {
  const cases: [Fault['do'], string, RegExp][] = [
    ['refuse', 'refused', /Firecracker refused PUT \/actions: out of memory/],
    ['mute', 'refused', /status 500 without a reason/],
    ['hang', 'timeout', /did not answer PUT \/actions within 400 ms/],
    ['die', 'gone', /broke during PUT \/actions/],
    ['garbage', 'nonsense', /not HTTP/],
  ];
  for (const [act, kind, words] of cases)
    it(`${act}: ${kind}`, async (t) => {
      const { client } = await withFake(t, [{ on: 'PUT /actions', do: act, message: 'out of memory' }]);
      await assert.rejects(client.flushMetrics(), fault(kind, words));
    });

  it('an endless answer is cut', async (t) => {
    const { client } = await withFake(t, [{ on: 'GET /', do: 'flood' }]);
    await assert.rejects(client.describe(), fault('nonsense', /more than 262144 bytes/));
  });

  it('a socket that nobody listens on, or appears late', async (t) => {
    const socket_path = join(dir, 'late.sock');
    const client = firecrackerClient({ socket_path, timeout_ms: 400 });
    await assert.rejects(client.describe(), fault('gone', /nobody listens .*ENOENT/));
    await assert.rejects(client.ready({ timeout_ms: 30, gone: () => null }), fault('gone', /nobody listens/));
    await assert.rejects(
      client.ready({ timeout_ms: 5000, gone: () => 'exit code 1' }),
      fault('gone', /ended before it answered: exit code 1/),
    );
    const fake = makeFake({ document, id: 'late', root: '', cwd: dir });
    t.after(() => fake.server.close());
    setTimeout(() => fake.server.listen(socket_path), 60);
    assert.equal((await client.ready({ timeout_ms: 5000, gone: () => null })).id, 'late');
  });

  it('an answer that is JSON but not an instance', async (t) => {
    const socket_path = join(dir, 'odd.sock');
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"state":"Odd"}'));
    }).listen(socket_path);
    t.after(() => server.close());
    await once(server, 'listening');
    await assert.rejects(
      firecrackerClient({ socket_path }).describe(),
      fault('nonsense', /not Firecracker's/),
    );
  });
});

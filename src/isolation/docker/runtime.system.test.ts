import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, afterEach, describe, it } from 'node:test';
import { baseImage, dockerMissing, startDocker, type TestDocker } from '../../../test/support/docker.ts';
import { tempDir } from '../../../test/support/folders.ts';
import { until } from '../contract/harness.ts';
import type { Limits, Machine } from '../driver.ts';
import type { MachineImage } from '../image.ts';
import type { InstanceSpec } from '../runtime.ts';
import { openDocker } from './engine.ts';
import { dockerRuntime } from './runtime.ts';

const MIB = 1024 * 1024;
const LIMITS: Limits = {
  ...{ time_ms: null, memory_bytes: 512 * MIB, processes: 100, disk_bytes: 256 * MIB },
  ...{ log_bytes: 16 * MIB, on_log_limit: 'drop' },
};
const SERVER = `
const http = require('node:http');
console.log('up', process.env.GREETING, process.getuid());
process.on('SIGTERM', () => { console.log('bye'); setTimeout(() => process.exit(0), 100); });
http.createServer((q, s) => { console.log('asked', q.url); s.end('hello ' + process.env.GREETING); }).listen(process.env.PORT);
`;

const missing = dockerMissing();
describe('docker runtime', { skip: missing ?? false }, async () => {
  if (missing !== null) return;
  const docker: TestDocker = await startDocker(['--live-restore']);
  const dir = await tempDir('docker-runtime');
  after(async () => {
    await runtime.release();
    await docker.stop();
    await rm(dir, { recursive: true, force: true });
  });
  // A range of its own: a run that was killed may have left a bridge behind.
  const network_range = `10.213.${process.pid % 256}.0/24`;
  const options = { data_dir: path.join(dir, 'data'), socket: docker.socket, network_range };
  await mkdir(options.data_dir);
  const image = await baseImage({
    User: '1234:1234',
    Env: ['PATH=/usr/local/bin:/usr/bin:/bin', 'GREETING=you'],
  });
  const root_image = await baseImage();
  const runtime = dockerRuntime(options);
  const engine = openDocker(docker.socket).client();
  const newId = () => `ins_${randomBytes(6).toString('hex')}`;

  // What a failed test left must not fail the next.
  afterEach(() => runtime.sweep(new Set()));

  interface Started {
    machine: Machine;
    port: number;
    id: string;
    output(): string;
  }
  async function start(o: Partial<InstanceSpec> & { of?: MachineImage } = {}): Promise<Started> {
    const id = newId();
    const port = await freePort();
    let text = '';
    const machine = await runtime.start({
      ...{
        id,
        deployment_id: 'dep_a',
        image: o.of ?? image,
        command: `exec node -e '${SERVER.replaceAll("'", '"')}'`,
      },
      ...{ env: { PORT: '3000', GREETING: 'world' }, host_port: port, guest_port: 3000, limits: LIMITS },
      ...{
        read_only_root: false,
        on_output: (_, chunk) => {
          text += chunk.toString();
        },
      },
      ...o,
    });
    return { machine, port, id, output: () => text };
  }
  /** Output and exit of a command in an instance. */
  async function run(command: string, o: Partial<InstanceSpec> & { of?: MachineImage } = {}) {
    const started = await start({ command, ...o });
    const exit = await started.machine.exited;
    return { exit, output: started.output() };
  }
  const ask = async (port: number) =>
    await (await fetch(`http://127.0.0.1:${port}/x`, { signal: AbortSignal.timeout(2000) })).text();
  const answers = (one: Started) =>
    until('it answers', async () => (await ask(one.port).catch(() => '')) === 'hello world');

  it('proves that it works by running a program', async () => {
    const test = await runtime.selfTest();
    assert.ok(test.ok, JSON.stringify(test));
    assert.match(test.detail, /169\.254\.0\.0\/16 closed/);
    const none = await dockerRuntime({ ...options, socket: '/nowhere/docker.sock' }).selfTest();
    assert.ok(!none.ok && /its socket does not exist/.test(none.reason) && /apt install/.test(none.install!));
  });

  it('serves on the forwarded port with its own environment and user, is measured, and ends on TERM', async () => {
    const one = await start();
    await answers(one);
    await until('its log is there', () => one.output().includes('asked'));
    assert.match(one.output(), /^up world 1234\nasked \/x\n/);
    assert.deepEqual(
      (await one.machine.listening()).map((at) => at.port),
      [3000],
    );
    const usage = await one.machine.usage();
    assert.ok(usage.processes === 1 && usage.memory_bytes > 10 * MIB, JSON.stringify(usage));
    assert.ok(existsSync(`/proc/${one.machine.pid}`));
    const exit = await one.machine.stop(5000);
    assert.deepEqual([exit.reason, exit.exit_code], ['killed', 0]);
    assert.match(one.output(), /bye\n$/);
    assert.ok(exit.cpu_ms! > 0);
    assert.deepEqual(await engine.listContainers({ all: true }), []);
  });

  it('runs the image’s own command, reports exits and signals, and restarts nothing', async () => {
    const own = await baseImage({ Entrypoint: ['/bin/sh', '-c'], Cmd: ['echo own $PORT; exit 7'] });
    const seen = await run('', { of: own, image: own, command: null });
    assert.deepEqual([seen.exit.reason, seen.exit.exit_code, seen.output], ['exited', 7, 'own 3000\n']);
    const killed = await run('kill -SEGV $$');
    assert.deepEqual([killed.exit.reason, killed.exit.signal], ['exited', 'SIGSEGV']);
  });

  it('honours STOPSIGNAL', async () => {
    const quits = await baseImage({ StopSignal: 'SIGQUIT' });
    const command =
      'trap "echo quit; exit 4" QUIT; trap "echo term; exit 5" TERM; echo up; while :; do sleep 0.05; done';
    const one = await start({ image: quits, command });
    await until('it is up', () => one.output() !== '');
    const exit = await one.machine.stop(5000);
    assert.deepEqual([exit.exit_code, one.output()], [4, 'up\nquit\n']);
  });

  it('goes on without the engine and is adopted, not restarted; the log goes on where it was', async () => {
    const first = dockerRuntime(options);
    const id = newId();
    const port = await freePort();
    let before = '';
    const spec: InstanceSpec = {
      ...{ id, deployment_id: 'dep_a', image, command: `exec node -e '${SERVER.replaceAll("'", '"')}'` },
      ...{ env: { PORT: '3000', GREETING: 'world' }, host_port: port, guest_port: 3000, limits: LIMITS },
      ...{
        read_only_root: false,
        on_output: (_, chunk) => {
          before += chunk.toString();
        },
      },
    };
    const { pid } = await first.start(spec);
    await until('it answers', async () => (await ask(port).catch(() => '')) === 'hello world');
    await until('the log is there', () => before.includes('asked /x'));
    await first.release();
    const logs_since = new Date();
    await fetch(`http://127.0.0.1:${port}/meanwhile`);

    let output = '';
    const on_output = (_: string, chunk: Buffer) => {
      output += chunk.toString();
    };
    const of = { id, host_port: port, guest_port: 3000, limits: LIMITS, on_output, logs_since };
    assert.deepEqual(await runtime.sweep(new Set([id])), []);
    const machine = await runtime.adopt(of);
    assert.equal(machine?.pid, pid);
    await until('the log goes on', () => output.includes('meanwhile'));
    assert.equal(output, 'asked /meanwhile\n');
    assert.equal(await ask(port), 'hello world');
    assert.equal((await machine!.stop(5000)).exit_code, 0);
    assert.equal(await runtime.adopt(of), null);
  });

  it('outlives a restart of the daemon, and nothing of its log is lost or told twice', async () => {
    const one = await start();
    await answers(one);
    await docker.restart();
    await until('it is followed again', async () => {
      await fetch(`http://127.0.0.1:${one.port}/after`, { signal: AbortSignal.timeout(1000) }).catch(
        () => null,
      );
      return one.output().includes('asked /after');
    });
    assert.equal(one.output().split('up world').length, 2);
    const exit = await one.machine.stop(5000);
    assert.deepEqual([exit.reason, exit.exit_code], ['killed', 0]);
  });

  it('holds limits: memory, processes, disk, log', async () => {
    const eat = 'const a=[];setInterval(()=>a.push(Buffer.alloc(16e6,1)),5)';
    const memory = await run(`node -e "${eat}"`, { limits: { ...LIMITS, memory_bytes: 128 * MIB } });
    assert.equal(memory.exit.reason, 'out_of_memory');
    const bomb =
      'b() { if [ $1 -gt 10 ]; then exec sleep 20; fi; b $(($1 + 1)) & b $(($1 + 1)) & wait; }; b 0';
    const processes = await run(bomb, { limits: { ...LIMITS, processes: 40 } });
    assert.equal(processes.exit.reason, 'too_many_processes');
    const fill = 'while :; do head -c 8M /dev/zero > /var_$((i=i+1)) || exit; sleep 0.05; done';
    const disk = await run(fill, { of: root_image, limits: { ...LIMITS, disk_bytes: 64 * MIB } });
    assert.equal(disk.exit.reason, 'out_of_disk');
    const flood = await run('yes $(head -c 4000 /dev/zero | tr "\\0" x) | head -c 20M; exit 3', {
      limits: { ...LIMITS, log_bytes: 10_000 },
    });
    assert.deepEqual([flood.exit.exit_code, flood.output.length < 10_200], [3, true]);
    assert.match(flood.output, /further output is dropped/);
  });

  it('keeps at most 16 MB of the daemon’s own log, whatever is printed', async () => {
    const one = await start({
      command: 'yes $(head -c 4000 /dev/zero | tr "\\0" x) | head -c 60M; echo over; sleep 60',
    });
    const folder = path.join(path.dirname(docker.socket), 'data/containers');
    await until('the flood is over', async () => (await one.machine.usage()).processes === 2);
    const kilobytes = Number.parseInt(execFileSync('du', ['-sk', folder], { encoding: 'utf8' }), 10);
    assert.ok(kilobytes < 17 * 1024, `${kilobytes} KiB`);
    await one.machine.stop(0);
  });

  it('a read-only root leaves /tmp', async () => {
    const script = 'touch /x || echo refused; echo 1 > /tmp/x && echo tmp';
    const { output } = await run(script, { of: root_image, read_only_root: true });
    assert.match(output, /refused\ntmp\n/);
  });

  it('keeps deployments apart, and lets instances of one talk', async () => {
    const one = await start();
    await answers(one);
    const address = Object.values(
      (await engine.getContainer((await engine.listContainers())[0]!.Id).inspect()).NetworkSettings.Networks,
    )[0]!.IPAddress;
    const call = `node -e 'fetch("http://${address}:3000",{signal:AbortSignal.timeout(3000)}).then(r=>r.text()).then(t=>console.log("ESCAPED",t),e=>console.log("no:",e.name))'`;
    assert.match((await run(call, { deployment_id: 'dep_b' })).output, /^no:/);
    assert.match((await run(call, { deployment_id: 'dep_a' })).output, /^ESCAPED hello/);
    await one.machine.stop(0);
  });

  it('sweeps instances nobody keeps, their images and networks', async () => {
    const [kept, lost] = [await start(), await start({ deployment_id: 'dep_lost' })];
    assert.deepEqual(await runtime.sweep(new Set([kept.id])), [lost.id]);
    assert.equal((await lost.machine.exited).reason, 'killed');
    const networks = (await engine.listNetworks())
      .map((one) => one.Name)
      .filter((name) => name.startsWith('kiln-'));
    assert.equal(networks.length, 1, `${networks}`);
    assert.deepEqual(await runtime.sweep(new Set()), [kept.id]);
    await kept.machine.exited;
    assert.deepEqual(await engine.listImages(), []);
  });

  it('refuses what would be no plain name or port', async () => {
    await assert.rejects(start({ id: '../x' }), /plain name/);
    await assert.rejects(start({ env: { 'A=B': '' } }), /cannot be passed/);
    await assert.rejects(start({ guest_port: 0 }), /no port/);
  });

  describe('cannot', () => {
    async function contained(script: string, o: { of?: MachineImage } = {}): Promise<void> {
      const { output } = await run(`${script}\necho tried`, o);
      assert.match(output, /^tried$/m);
      assert.doesNotMatch(output, /ESCAPED|bait-/);
    }
    it('read the data folder, another workspace or the engine', async () => {
      await writeFile(path.join(options.data_dir, 'bait'), 'bait-1');
      await contained(
        `cat ${options.data_dir}/bait /proc/1/root${options.data_dir}/bait; [ -e ${dir} ] && echo ESCAPED`,
      );
      await contained(
        `[ -e /proc/${process.pid}/stat ] && echo ESCAPED; kill -0 ${process.pid} && echo ESCAPED`,
      );
      await contained('cat /proc/[0-9]*/environ | tr "\\0" "\\n" | grep -E "KILN|VAULT"', { of: root_image });
    });
    it('reach the Docker socket', async () => {
      const sockets = [docker.socket, '/var/run/docker.sock', '/run/docker.sock'];
      await contained(sockets.map((at) => `[ -e ${at} ] && echo ESCAPED`).join('\n'), { of: root_image });
    });
    it('reach loopback ports of the host or the metadata address', async () => {
      const server = createServer((_, answer) => answer.end('ESCAPED')).listen(0, '127.0.0.1');
      await until('it listens', () => server.listening);
      const { port } = server.address() as AddressInfo;
      const call = (url: string) =>
        `node -e 'fetch("${url}",{signal:AbortSignal.timeout(2000)}).then(r=>r.text()).then(console.log,e=>console.log(e.cause?.code??e.name))'`;
      await contained(call(`http://127.0.0.1:${port}`));
      const gateway =
        '$(node -p \'require("fs").readFileSync("/proc/net/route","utf8").split("\\n")[1].split("\\t")[2].match(/../g).reverse().map(h=>parseInt(h,16)).join(".")\')';
      await contained(
        `gw=${gateway}; node -e 'fetch("http://"+process.argv[1]+":${port}",{signal:AbortSignal.timeout(2000)}).then(r=>r.text()).then(console.log,e=>console.log(e.cause?.code))' "$gw"`,
      );
      server.close();
      const { output } = await run(call('http://169.254.169.254/latest/meta-data/'));
      assert.equal(output, 'ECONNREFUSED\n', 'the firewall answers, at once');
    });
    it('make devices, gain privileges or change the kernel, not even as the image’s root', async () => {
      const script = [
        ...['mknod /tmp/disk b 8 0 && echo ESCAPED', 'mknod /tmp/mem c 1 1 && echo ESCAPED'],
        ...[
          'for d in /dev/vda /dev/sda /dev/mem /dev/kmsg /dev/kvm /dev/fuse; do [ -e $d ] && echo ESCAPED $d; done',
        ],
        ...[
          'mount -t proc proc /mnt && echo ESCAPED; unshare -Urm true && echo ESCAPED',
          'chroot / true && echo ESCAPED',
        ],
        ...[
          'for f in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sysrq-trigger; do [ -w $f ] && (cat $f > $f) && echo ESCAPED $f; done',
        ],
        'grep -q "^NoNewPrivs:[[:space:]]*1" /proc/self/status || echo ESCAPED',
        'cp /bin/sh /tmp/suid && chmod 4755 /tmp/suid',
      ].join('\n');
      await contained(script, { of: root_image });
      await contained(`${script}\ngrep -q "^CapEff:[[:space:]]*0*$" /proc/self/status || echo ESCAPED`);
    });
    it('be seen with its secrets by other users of the host', async () => {
      const one = await start({ env: { PORT: '3000', GREETING: 'world', TOKEN: 'hush-1' } });
      assert.ok(!readFileSync(`/proc/${one.machine.pid}/cmdline`, 'utf8').includes('hush-1'));
      await one.machine.stop(0);
    });
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await until('a port is free', () => server.listening);
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

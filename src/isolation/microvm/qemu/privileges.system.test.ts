/** What an instance in QEMU can do to the way out that the agent made for it, as root and as a user without rights. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { LIMITS, until } from '../../contract/harness.ts';
import type { ImageRuntime } from '../../runtime.ts';
import { builderAsImage, makeInstances, TEST_PARTS, testImage } from './contract.fixtures.ts';
import { qemuDriver } from './driver.ts';

const builder = await testImage();
const dir = await mkdtemp(join(tmpdir(), 'kiln-qemu-rights-'));
const options = {
  data_dir: join(dir, 'data'),
  work_dir: join(dir, 'data/machines'),
  host_env: { PATH: process.env.PATH },
  ...TEST_PARTS,
  image: builder,
};
await mkdir(options.work_dir, { recursive: true });
const driver = qemuDriver(options);
const tested = await driver.selfTest();
const skip = tested.ok ? false : `qemu does not work here: ${tested.reason}`;

/** Prints a line per attempt: its name, and what came of it. Ports of services on the host's loopback are arguments. */
const ATTEMPTS = `
import ctypes, os, socket, subprocess, sys
tcp, udp = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, what):
    try:
        print(name, '=', what(), flush=True)
    except Exception as error:
        print(name, '=', 'failed', error, flush=True)
def connect(host, port, device=None):
    s = socket.socket()
    s.settimeout(3)
    if device: s.setsockopt(socket.SOL_SOCKET, 25, device)
    s.connect((host, port))
    s.settimeout(30)
    return 'ESCAPED ' + s.recv(100).decode()
def datagram(host, port, device=None, flag=0):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if device: s.setsockopt(socket.SOL_SOCKET, 25, device)
    s.settimeout(3)
    s.sendto(b'ESCAPED over ' + host.encode() + b' ' + str(device).encode(), (host, port))
    return 'sent'
def busybox(*words):
    done = subprocess.run(['/dev/.kiln/busybox', *words], capture_output=True, text=True)
    return 'failed ' + done.stderr.strip() if done.returncode else 'ESCAPED ' + done.stdout
def leave():
    os.mkdir('/tmp/jail'); here = os.open('/', os.O_RDONLY)
    os.chroot('/tmp/jail'); os.fchdir(here)
    for _ in range(20): os.chdir('..')
    os.chroot('.')
    seen = 'ESCAPED ' if os.path.exists('/run_command.sh') else ''
    os.fchdir(here); os.chroot('.')
    return seen + 'looked'
outside = b'eth1' if '10.0.3.' in subprocess.run(['/dev/.kiln/busybox', 'ip', 'addr', 'show', 'eth1'], capture_output=True, text=True).stdout else b'eth0'
attempt('packets', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) and 'ESCAPED')
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255) and 'ESCAPED')
for host in ['10.0.3.2', '10.0.3.3', '10.0.3.4', '10.0.3.77', '10.0.3.255', '127.0.0.1', '0.0.0.0']:
    attempt('tcp ' + host, lambda: connect(host, tcp))
    attempt('tcp over the card ' + host, lambda: connect(host, tcp, outside))
for host in ['10.0.3.2', '10.0.3.3', '10.0.3.4', '10.0.3.255', '255.255.255.255', '169.254.1.1']:
    attempt('udp ' + host, lambda: datagram(host, udp))
    attempt('udp over the card ' + host, lambda: datagram(host, udp, outside))
attempt('names', lambda: datagram('10.0.3.3', 53))
attempt('world', lambda: datagram('198.51.100.1', 9))
attempt('metadata', lambda: connect('169.254.169.254', 80))
attempt('device', lambda: os.mknod('/var/disk', 0o60600, os.makedev(254, 0)) or 'ESCAPED')
attempt('kernel', lambda: open('/proc/sys/kernel/core_pattern', 'w').write('|/x') and 'ESCAPED')
attempt('host name', lambda: socket.sethostname('x') or 'ESCAPED')
attempt('agent', lambda: os.listdir('/proc/1/root') and 'ESCAPED')
attempt('its shell', lambda: open('/dev/.kiln/busybox', 'r+b') and 'ESCAPED')
attempt('mount', lambda: busybox('mount', '-t', 'tmpfs', 'x', '/mnt'))
attempt('namespace', lambda: busybox('unshare', '-U', 'true'))
attempt('route', lambda: busybox('ip', 'route', 'del', 'prohibit', '10.0.3.2/32'))
attempt('routes', lambda: busybox('ip', 'route', 'add', '10.0.3.2/32', 'dev', outside.decode()))
attempt('root', leave)
attempt('tcp in the end 10.0.3.2', lambda: connect('10.0.3.2', tcp))
`;

/** What servers that start as root do. */
const ORDINARY = `
import os, pwd, socket, subprocess
s = socket.socket(); s.bind(('0.0.0.0', 80)); s.listen()
os.makedirs('/var/lib/thing', exist_ok=True)
os.chown('/var/lib/thing', 1000, 1000); os.chmod('/var/lib/thing', 0o2750)
open('/etc/made', 'w').write('x'); os.chmod('/etc/made', 0o400); os.chown('/etc/made', 1000, 1000)
print('read', open('/etc/made').read(), flush=True)
child = os.fork()
if child == 0:
    os.setgroups([1000]); os.setgid(1000); os.setuid(1000)
    open('/var/lib/thing/file', 'w').write('mine')
    print('as', os.getuid(), os.getgid(), open('/var/lib/thing/file').read(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
victim = subprocess.Popen(['sleep', '1000'], user=1000)
victim.terminate(); print('ended', victim.wait())
print('serving', flush=True)
while True:
    c, _ = s.accept(); c.recv(1000); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nport 80'); c.close()
`;

let count = 0;
describe('rights of instances in QEMU', { skip }, () => {
  let runtime: ImageRuntime;
  const seen: string[] = [];
  const tcp = createServer((socket) => socket.on('error', () => undefined).end('host loopback'));
  const udp = createSocket('udp4');
  before(async () => {
    runtime = makeInstances(options, driver);
    tcp.listen(0, '127.0.0.1');
    udp.bind(0, '127.0.0.1');
    await Promise.all([once(tcp, 'listening'), once(udp, 'listening')]);
    udp.on('message', (text) => seen.push(String(text)));
  });
  after(async () => {
    tcp.close();
    udp.close();
    await runtime.sweep(new Set());
    await rm(dir, { recursive: true, force: true });
  });

  async function start(user: string, script: string, guest_port: number) {
    let output = '';
    const args = [(tcp.address() as AddressInfo).port, udp.address().port].map(String);
    const probe = createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const host_port = (probe.address() as AddressInfo).port;
    probe.close();
    const machine = await runtime.start({
      id: `ins_${process.pid}r${count++}`,
      deployment_id: 'dep_1',
      image: builderAsImage(builder, { Cmd: ['python3', '-c', script, ...args], User: user }),
      command: null,
      env: {},
      host_port,
      guest_port,
      limits: { ...LIMITS, time_ms: null, memory_bytes: 512 << 20, on_log_limit: 'drop' },
      read_only_root: false,
      on_output: (_, chunk) => {
        output += chunk.toString();
      },
    });
    return { machine, host_port, output: () => output };
  }

  for (const user of ['root', 'app'])
    it(`${user} reaches neither the host's loopback nor a metadata service, whatever it tries`, async () => {
      const { machine, output } = await start(user, ATTEMPTS, 3000);
      const exit = await machine.exited;
      assert.equal(exit.reason, 'exited', output());
      assert.match(output(), /names = sent\nworld = sent\n(.*\n)*tcp in the end/);
      assert.doesNotMatch(output(), /ESCAPED/);
      assert.deepEqual(seen, []);
    });

  it('a server that starts as root binds port 80, owns files and becomes somebody else', async () => {
    const { machine, host_port, output } = await start('root', ORDINARY, 80);
    try {
      await until('it serves', () => output().includes('serving') || output().includes('Traceback'));
      assert.match(output(), /read x\nas 1000 1000 mine\nended -15\n/);
      assert.equal(await (await fetch(`http://127.0.0.1:${host_port}/`)).text(), 'port 80');
    } finally {
      assert.equal((await machine.stop(10_000)).reason, 'killed');
    }
  });
});

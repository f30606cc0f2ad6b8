/** Other proxies in front of the same server, where they are installed: what a proxied request costs elsewhere. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';

export interface Reference {
  name: string;
  port: number;
  pid: number;
  stop(): void;
}

interface Kind {
  name: string;
  version: string[];
  /** The command, and the file that it reads. */
  prepare(dir: string, port: number, app_port: number): { args: string[]; config: string; content: string };
}

const KINDS: Kind[] = [
  {
    name: 'nginx',
    version: ['-v'],
    prepare(dir, port, app_port) {
      const config = path.join(dir, 'nginx.conf');
      const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (name) => `${name}_temp_path ${path.join(dir, name)};`,
      );
      // One process: what it takes is what the worker takes.
      const content = `daemon off; master_process off; pid ${path.join(dir, 'nginx.pid')}; error_log stderr crit;
        events { worker_connections 1024; }
        http {
          access_log off; keepalive_requests 1000000000; ${folders.join(' ')}
          upstream app { server 127.0.0.1:${app_port}; keepalive 64; keepalive_requests 1000000000; }
          server {
            listen 127.0.0.1:${port};
            location / {
              proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
              proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
              proxy_set_header X-Forwarded-Proto $scheme;
            }
          }
        }\n`;
      return { args: ['-e', 'stderr', '-p', dir, '-c', config], config, content };
    },
  },
  {
    name: 'caddy',
    version: ['version'],
    prepare(dir, port, app_port) {
      const config = path.join(dir, 'Caddyfile');
      const content = `{
        admin off
        auto_https off
        log {
          level ERROR
        }
      }
      http://:${port} {
        bind 127.0.0.1
        reverse_proxy 127.0.0.1:${app_port} {
          transport http {
            keepalive_idle_conns_per_host 64
          }
        }
      }\n`;
      return { args: ['run', '--adapter', 'caddyfile', '--config', config], config, content };
    },
  },
];

/** Starts those that are installed, in front of the app; says which are not. */
export async function startReferences(dir: string, app_port: number): Promise<Reference[]> {
  const started: Reference[] = [];
  for (const kind of KINDS) {
    const missing = await promisify(execFile)(kind.name, kind.version).then(
      () => null,
      (error: NodeJS.ErrnoException) => error,
    );
    const reference = missing === null ? await start(kind, path.join(dir, kind.name), app_port) : null;
    if (reference !== null) started.push(reference);
    else
      console.log(`${kind.name} ${missing ? 'is not installed' : 'does not start'}: no comparison with it`);
  }
  return started;
}

async function start(kind: Kind, dir: string, app_port: number): Promise<Reference | null> {
  const port = await freePort();
  await mkdir(dir);
  const { args, config, content } = kind.prepare(dir, port, app_port);
  await writeFile(config, content);
  const env = { PATH: process.env.PATH, HOME: dir };
  const child = spawn(kind.name, args, { env, stdio: 'ignore' });
  const stop = (): void => void child.kill();
  if (!(await isListening(child, port))) {
    stop();
    return null;
  }
  return { name: `${kind.name}, proxied 4 KiB`, port, pid: child.pid!, stop };
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const START_TIMEOUT_MS = 10_000;

async function isListening(child: ChildProcess, port: number): Promise<boolean> {
  const until = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < until && child.exitCode === null) {
    const is_up = await new Promise<boolean>((resolve) => {
      const socket = net.connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (is_up) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** Debian's docker-registry on a loopback port, for base images: Docker and BuildKit speak plain HTTP to localhost. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { tempDir } from './folders.ts';

export interface TestRegistry {
  /** `localhost:<port>` */
  host: string;
  stop(): Promise<void>;
}

export async function startRegistry(): Promise<TestRegistry> {
  const dir = await tempDir('registry');
  const port = await freePort();
  const config = `version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: ${dir}/data } }
http: { addr: "127.0.0.1:${port}" }
`;
  await writeFile(path.join(dir, 'config.yml'), config);
  const child = spawn('docker-registry', ['serve', path.join(dir, 'config.yml')], { stdio: 'ignore' });
  for (let tries = 0; ; tries++) {
    if (await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => null)) break;
    if (tries > 100 || child.exitCode !== null) throw new Error('docker-registry did not start');
    await sleep(50);
  }
  return {
    host: `localhost:${port}`,
    async stop() {
      child.kill();
      if (child.exitCode === null) await once(child, 'exit');
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  return port;
}

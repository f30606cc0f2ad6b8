import { randomInt } from 'node:crypto';
import net from 'node:net';

/**
 * Ports for instances lie below those that systems give to outgoing connections (Linux: from 32768, others: from
 * 49152): an app needs seconds until it binds its port, and under load any outgoing connection, our own to other
 * instances included, could have taken it meanwhile. Nor are they those that Kubernetes gives away (from 30000).
 */
const FIRST_PORT = 10_240;
const END_PORT = 30_000;
const TRIES = 100;

/**
 * A port that an instance may listen on, entered in `taken`: the wanted one when nothing on this machine holds it,
 * else a free one.
 */
export async function choosePort(wanted: number | null, taken: Set<number>): Promise<number> {
  if (wanted !== null && (await take(wanted, taken))) return wanted;
  for (let tries = 0; tries < TRIES; tries++) {
    const port = randomInt(FIRST_PORT, END_PORT);
    if (await take(port, taken)) return port;
  }
  throw new Error('no free port on this machine');
}

/** Entered before anybody is asked, so that two that start at once do not both find it free. */
async function take(port: number, taken: Set<number>): Promise<boolean> {
  if (taken.has(port)) return false;
  taken.add(port);
  if (await isFree(port)) return true;
  taken.delete(port);
  return false;
}

/** Free on every address: an app may bind any of them. */
async function isFree(port: number): Promise<boolean> {
  for (const host of ['127.0.0.1', '0.0.0.0', '::']) if (!(await binds(port, host))) return false;
  return true;
}

function binds(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    // A machine without IPv6 says EADDRNOTAVAIL or EAFNOSUPPORT: nobody else can hold it there either.
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'EADDRINUSE' && error.code !== 'EACCES'),
    );
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

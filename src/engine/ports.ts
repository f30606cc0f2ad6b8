import net from 'node:net';

/** A port that instances may listen on: the wanted one when nothing on this machine holds it, else a free one. */
export async function choosePort(wanted: number | null, taken: ReadonlySet<number>): Promise<number> {
  if (wanted !== null && !taken.has(wanted) && (await isFree(wanted))) return wanted;
  for (let tries = 0; tries < 100; tries++) {
    const port = await anyPort();
    if (!taken.has(port)) return port;
  }
  throw new Error('no free port on this machine');
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

function anyPort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen({ port: 0, host: '127.0.0.1', exclusive: true }, () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

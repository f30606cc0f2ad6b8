// A server needs one thing to be published: it listens on the port it is given.
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';

const port = Number(process.env.PORT ?? 3000);
const page = readFileSync(new URL('./index.html', import.meta.url));
const started = new Date();

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url ?? '/', 'http://hello');
  if (pathname === '/healthz') return answer(response, 200, 'text/plain', 'ok\n');
  if (pathname === '/api/now') {
    const body = { now: new Date(), started, node: process.version, pid: process.pid };
    return answer(response, 200, 'application/json', `${JSON.stringify(body)}\n`);
  }
  if (pathname === '/') return answer(response, 200, 'text/html; charset=utf-8', page);
  return answer(response, 404, 'text/plain', 'There is nothing here.\n');
});

function answer(response, status, type, body) {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}

server.listen(port, () => console.log(`hello listens on port ${port}`));

// Asked to stop: finish what is being answered, then go.
process.on('SIGTERM', () => server.close(() => process.exit(0)));

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { promises as dns } from 'node:dns';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { mock, test } from 'node:test';
import { retryDelayMs } from '../domain/webhook.ts';
import { isPublicAddress, send, signature } from './webhook-request.ts';

test('what is public and what is not', () => {
  for (const address of ['1.1.1.1', '8.8.8.8', '172.32.0.1', '2606:4700::1111', '::ffff:8.8.8.8'])
    assert.equal(isPublicAddress(address), true, address);
  for (const address of [
    '127.0.0.1',
    '10.1.2.3',
    '172.16.0.1',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '255.255.255.255',
    '224.0.0.1',
    '::1',
    '::',
    'fe80::1',
    'fc00::1',
    'ff02::1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    // Azure's machines are served from the host below them.
    '168.63.129.16',
    // Other ways to write an IPv4 address inside one of IPv6.
    '::127.0.0.1',
    '::ffff:0:7f00:1',
    'example.com',
    '',
    ...Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address)),
  ])
    assert.equal(isPublicAddress(address), false, address);
});

test('the signature is what a receiver computes', () => {
  const v1 = createHmac('sha256', 's').update('12.{"a":1}').digest('hex');
  assert.equal(signature('s', '{"a":1}', 12), `t=12,v1=${v1}`);
});

test('retries wait longer and longer, and end', () => {
  const waits = [1, 2, 3, 4].map((attempts) => retryDelayMs(attempts, 3));
  assert.equal(waits[3], null);
  assert.ok(waits[0]! < waits[1]! && waits[1]! < waits[2]!);
  assert.equal(retryDelayMs(1, 0), null);
});

async function receiver(answer: http.RequestListener): Promise<{ url: string; close(): void }> {
  const server = http.createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url, close };
}

const sending = (url: string, more: object = {}) => ({
  url,
  headers: { 'x-own': '1' },
  secret: 's',
  body: '{"n":1}',
  allow_private: true,
  signal: new AbortController().signal,
  now_ms: 12_000,
  ...more,
});

test('sends body, signature and own headers; follows no redirect; bounds the answer', async () => {
  const seen: http.IncomingMessage[] = [];
  let hits = 0;
  const at = await receiver((request, response) => {
    seen.push(request);
    request.resume();
    hits++;
    if (request.url === '/away') response.writeHead(302, { location: '/elsewhere' }).end();
    else response.end('x'.repeat(100_000));
  });
  try {
    const sent = await send(sending(at.url));
    assert.deepEqual([sent.status, sent.excerpt?.length], [200, 1024]);
    assert.equal(seen[0]!.headers['miosa-signature'], signature('s', '{"n":1}', 12));
    assert.equal(seen[0]!.headers['x-own'], '1');
    assert.equal((await send(sending(`${at.url}/away`))).status, 302);
    assert.equal(hits, 2);
  } finally {
    at.close();
  }
});

test('nothing private is connected to unless allowed: by address, by name, by scheme', async () => {
  let hits = 0;
  const at = await receiver((_request, response) => {
    hits++;
    response.end();
  });
  try {
    const port = new URL(at.url).port;
    for (const url of [`https://127.0.0.1:${port}`, `https://localhost:${port}`, `https://[::1]:${port}`]) {
      const { status, error } = await send(sending(url, { allow_private: false }));
      assert.equal(status, null);
      assert.match(error!, /not public/);
    }
    assert.match((await send(sending(at.url, { allow_private: false }))).error!, /only https/);
    assert.equal(hits, 0);
    assert.match((await send(sending('http://127.0.0.1:1'))).error!, /ECONNREFUSED/);
  } finally {
    at.close();
  }
});

test('a name is resolved once: what it says the second time is never asked for', async () => {
  const at = await receiver((_request, response) => response.end('here'));
  const answers = [
    [{ address: '127.0.0.1', family: 4 }],
    [
      { address: '93.184.216.34', family: 4 },
      { address: '10.0.0.1', family: 4 },
    ],
    [],
  ];
  const lookup = mock.method(dns, 'lookup', async () => answers[lookup.mock.callCount()] ?? []);
  try {
    // The system knows no such name, so the connection can only have gone to the address of the one look-up.
    const port = new URL(at.url).port;
    const sent = await send(sending(`http://rebinding.invalid:${port}/`));
    assert.deepEqual([sent.status, sent.excerpt, lookup.mock.callCount()], [200, 'here', 1]);
    // One private address among public ones is enough.
    const mixed = await send(sending('https://rebinding.invalid/', { allow_private: false }));
    assert.match(mixed.error!, /not public/);
    assert.match((await send(sending('https://rebinding.invalid/'))).error!, /no address/);
  } finally {
    lookup.mock.restore();
    at.close();
  }
});

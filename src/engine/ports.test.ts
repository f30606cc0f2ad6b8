import assert from 'node:assert/strict';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { test } from 'node:test';
import { choosePort } from './ports.ts';

test('ports are free, each given once, and never among those of outgoing connections', async () => {
  const taken = new Set<number>();
  const ports = await Promise.all(Array.from({ length: 50 }, () => choosePort(null, taken)));
  assert.equal(new Set(ports).size, 50);
  assert.deepEqual(taken, new Set(ports));
  for (const port of ports) assert.ok(port >= 1024 && port < 32_768, String(port));
});

test('a wanted port goes to one of many that want it at once; held by another program, to none', async () => {
  const holder = net.createServer().listen(0, '0.0.0.0');
  await once(holder, 'listening');
  const { port } = holder.address() as AddressInfo;
  const taken = new Set<number>();
  assert.notEqual(await choosePort(port, taken), port);
  await new Promise((resolve) => holder.close(resolve));
  const given = await Promise.all(Array.from({ length: 5 }, () => choosePort(port, taken)));
  assert.equal(given.filter((one) => one === port).length, 1);
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttp } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { it, type TestContext } from 'node:test';
import type { NetworkPolicy } from '../network/policy.ts';
import { type Bench, newId, processesWith, until } from './harness.ts';

/** Asks for a URL as most programs do, through the proxy that the environment names; prints status and text. */
const FETCH = `
const [url, ...args] = process.argv.slice(1);
const proxy = new URL(process.env.http_proxy);
require('http').get({host: proxy.hostname, port: proxy.port, path: url, headers: {host: new URL(url).host}}, async (answer) => {
  let text = '';
  for await (const chunk of answer) text += chunk;
  console.log(answer.statusCode, text.trim());
}).on('error', (error) => console.log(error.code));`;
const fetchScript = (...urls: string[]) => urls.map((url) => `node -e "$FETCH" '${url}'`).join('\n');

/** What a build must not reach, and what it may; for drivers that claim to hold the policy. */
export function networkCases(bench: () => Bench): void {
  function claimed(title: string, test: () => Promise<void>): void {
    it(title, async (t: TestContext) => {
      const { driver } = bench();
      if (!driver.capabilities.limits_network) return t.skip(`${driver.name} does not claim limits_network`);
      await test();
    });
  }
  const run = (script: string, mode: NetworkPolicy['mode'], allow: string[] = []) =>
    bench().run(script, { env: { FETCH }, network: { mode, allow } });

  for (const kind of ['build', 'exec'] as const)
    claimed(`${kind}: the host's loopback and abstract sockets cannot be reached`, async () => {
      const abstract = `\0kiln-${newId()}`;
      const servers = [
        createServer((socket) => socket.end('ESCAPED')).listen(0, '127.0.0.1'),
        createServer((socket) => socket.end('ESCAPED')).listen(0, '::1'),
        createServer((socket) => socket.end('ESCAPED')).listen(0, '0.0.0.0'),
        createServer((socket) => socket.end('ESCAPED')).listen(abstract),
      ];
      await Promise.all(servers.map((server) => once(server, 'listening')));
      const ports = servers.slice(0, 3).map((server) => (server.address() as AddressInfo).port);
      const direct = [
        `{host:'127.0.0.1',port:${ports[0]}}`,
        `{host:'::1',port:${ports[1]}}`,
        `{host:'127.0.0.1',port:${ports[2]}}`,
        `{path:'\\0${abstract.slice(1)}'}`,
      ].map((to) => `require('net').connect(${to}).on('data',d=>console.log(String(d))).on('error',()=>0);`);
      const script = `node -e "${direct.join('')}"; ${fetchScript(
        `http://127.0.0.1:${ports[0]}/`,
        `http://[::1]:${ports[1]}/`,
        `http://localhost:${ports[0]}/`,
      )}; echo tried`;
      const { stdout } = await bench().run(script, { kind, env: { FETCH } });
      for (const server of servers) server.close();
      assert.doesNotMatch(stdout(), /ESCAPED/);
      assert.match(stdout(), /(^40[03] .*\n|^502 .*\n){3}tried/m);
    });

  claimed('the metadata address and private ranges are refused, by name in log and report', async () => {
    const urls = [
      'http://169.254.169.254/latest/',
      'http://10.0.0.1/',
      'http://192.168.1.1/',
      'http://[fd00::1]/',
    ];
    const { stdout, stderr, exit } = await run(fetchScript(...urls), 'open');
    assert.equal(stdout().match(/^403 /gm)?.length, urls.length, stdout());
    assert.match(stderr(), /\[kiln\] network: 169\.254\.169\.254:80 is refused: .*link-local/);
    const refused = exit.hosts?.filter((one) => one.refused !== null).map((one) => one.host);
    assert.deepEqual(refused?.sort(), ['10.0.0.1', '169.254.169.254', '192.168.1.1', 'fd00::1']);
  });

  claimed('there is no way around the proxy', async () => {
    const script = [
      `const tell = (how) => console.log('ESCAPED', how);`,
      `for (const host of ['1.1.1.1', '169.254.169.254', '10.0.0.1']) require('net').connect({host, port: 80}).on('connect', () => tell(host)).on('error', () => 0);`,
      `const udp = require('dgram').createSocket('udp4'); udp.send('x', 53, '1.1.1.1', (error) => { if (!error) tell('udp'); udp.close(); });`,
      `require('dns').lookup('example.com', (error) => { if (!error) tell('dns'); });`,
      `setTimeout(() => { console.log('tried'); process.exit(); }, 1500);`,
    ].join('');
    const { stdout } = await bench().run('node -e "$SCRIPT"', { env: { SCRIPT: script } });
    assert.equal(stdout(), 'tried\n');
  });

  claimed('a named host works through the proxy, and only with a policy that has a network', async () => {
    const server = createHttp((_, response) => response.end('hello')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const named = `localhost:${port}`;
    const script = fetchScript(`http://${named}/`, 'http://other.example/');
    const registries = await run(script, 'registries', [named]);
    assert.match(
      registries.stdout(),
      /^200 hello\n403 other\.example:80 is refused: .*--network-allow other\.example/,
    );
    assert.deepEqual(
      registries.exit.hosts?.map((one) => [one.host, one.port, one.connections, one.refused !== null]),
      [
        ['localhost', port, 1, false],
        ['other.example', 80, 1, true],
      ],
    );
    assert.ok(registries.exit.hosts![0]!.bytes_in > 5);
    const none = await run(script, 'none', [named]);
    server.close();
    assert.match(none.stdout(), /^403 .*builds here have no network\n403 /);
    assert.match(none.stderr(), /\[kiln\] network: localhost:\d+ is refused/);
  });

  it('a service of the host’s loopback that was named is at the same port inside', async (t: TestContext) => {
    const { limits_network, own_kernel } = bench().driver.capabilities;
    if (!limits_network || own_kernel || bench().driver.base_image)
      return t.skip(`${bench().driver.name} brings nobody to a loopback but through its proxy`);
    const [named, other] = [createServer((s) => s.end('mirror')), createServer((s) => s.end('ESCAPED'))];
    for (const server of [named, other]) await once(server.listen(0, '127.0.0.1'), 'listening');
    const [port, hidden] = [named, other].map((server) => (server.address() as AddressInfo).port);
    const connect = (at: number | undefined) =>
      `node -e "require('net').connect(${at},'localhost').on('data',d=>console.log(''+d)).on('error',e=>console.log('refused'))"`;
    const script = `${connect(port)}; ${connect(hidden)}`;
    const { stdout, exit } = await run(script, 'registries', [`127.0.0.1:${port}`]);
    const none = await run(script, 'none', [`127.0.0.1:${port}`]);
    for (const server of [named, other]) server.close();
    assert.equal(stdout(), 'mirror\nrefused\n');
    assert.deepEqual(
      exit.hosts?.map((one) => [one.host, one.port, one.connections, one.bytes_in]),
      [['127.0.0.1', port, 1, 6]],
    );
    assert.equal(none.stdout(), 'refused\nrefused\n');
  });

  claimed("Node's own fetch goes through the proxy, whatever its version", async () => {
    const script = `fetch('https://somewhere.example/').catch((error) => console.log(String(error.cause)))`;
    const { stdout, exit } = await run(`node -e "${script}"`, 'none');
    // Each version of Node words it in its own way.
    assert.match(stdout(), /403|proxy|cancelled/i);
    assert.deepEqual(
      exit.hosts?.map((one) => [one.host, one.port]),
      [['somewhere.example', 443]],
    );
  });

  it('its way out costs the machine no process and is gone with it', async (t: TestContext) => {
    const { limits_network, own_kernel } = bench().driver.capabilities;
    if (!limits_network) return t.skip(`${bench().driver.name} does not claim limits_network`);
    if (bench().driver.base_image && !own_kernel)
      return t.skip('in a container the relay to the proxy is a process of the machine');
    const { machine, stdout } = await bench().start('echo up; exec sleep 60', { kind: 'exec' });
    await until('it runs', () => stdout() !== '');
    assert.equal((await machine.usage()).processes, 1);
    await machine.stop(0);
    const exit = await machine.exited;
    assert.equal(exit.peak_processes, 1);
    assert.deepEqual(processesWith(machine.id), []);
  });

  claimed('the command has neither the channel nor its variables', async () => {
    const { stdout } = await bench().run(
      'env | grep NODE_CHANNEL; [ -e /proc/self/fd/5 ] && echo open; echo done',
    );
    assert.equal(stdout(), 'done\n');
  });
}

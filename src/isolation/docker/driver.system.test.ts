import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, it } from 'node:test';
import { baseImage, dockerMissing, startDocker } from '../../../test/support/docker.ts';
import { tempDir } from '../../../test/support/folders.ts';
import { LIMITS, until } from '../contract/harness.ts';
import { isolationContract } from '../contract.ts';
import type { Egress } from '../network/policy.ts';
import { dockerDriver } from './driver.ts';

const missing = dockerMissing();
if (missing !== null) it('docker is skipped', { skip: missing }, () => undefined);
else {
  const docker = await startDocker();
  after(() => docker.stop());
  const base_image = await baseImage();
  const kept = new URL('../../../test/support/docker-driver.ts', import.meta.url).href;
  await isolationContract(
    'docker',
    (o) => dockerDriver(Object.assign(o, { socket: docker.socket, base_image })),
    kept,
  );

  it('reaches the network through the proxy’s socket alone, and keeps a cache folder', async () => {
    const dir = await tempDir('docker-egress');
    const asked: string[] = [];
    let policy: string | undefined;
    const driver = dockerDriver({
      ...{
        data_dir: dir,
        work_dir: path.join(dir, 'machines'),
        host_env: {},
        socket: docker.socket,
        base_image,
      },
      async open_egress(o) {
        policy = o.policy.mode;
        const proxy = createServer((request, answer) => {
          asked.push(request.url!);
          answer.end('through the proxy');
        }).listen(o.socket_path!);
        await until('the proxy listens', () => proxy.listening);
        const contact = {
          host: 'example.test',
          port: 80,
          connections: 1,
          refused: null,
          bytes_in: 0,
          bytes_out: 0,
        };
        return {
          socket_path: o.socket_path,
          contacts: () => [contact],
          close: async () => void proxy.close(),
        } as unknown as Egress;
      },
    });
    await mkdir(path.join(dir, 'cache'));
    await mkdir(path.join(dir, 'workspace'));
    const ask =
      'require("http").get({host:"127.0.0.1",port:new URL(process.env.http_proxy).port,path:"http://example.test/x"},r=>r.on("data",d=>console.log(String(d))))';
    const run = async (mode: 'registries') => {
      let output = '';
      const machine = await driver.start({
        ...{
          id: `mch_egress_${mode}`,
          kind: 'build',
          workspace_dir: path.join(dir, 'workspace'),
          cwd: '.',
          env: {},
        },
        ...{
          limits: LIMITS,
          network: { mode, allow: [] },
          cache: { dir: path.join(dir, 'cache'), max_bytes: 1e6 },
        },
        command: `echo $http_proxy; date > $KILN_CACHE_DIR/seen; node -e '${ask}' 2>/dev/null; grep -c : /proc/net/dev`,
        on_output: (_, chunk) => {
          output += chunk.toString();
        },
      });
      return { exit: await machine.exited, output };
    };
    const one = await run('registries');
    assert.equal(one.output, 'http://127.0.0.1:3128\nthrough the proxy\n1\n');
    assert.deepEqual([asked, policy], [['http://example.test/x'], 'registries']);
    assert.equal(one.exit.hosts?.[0]?.host, 'example.test');
    await rm(dir, { recursive: true });
  });
}

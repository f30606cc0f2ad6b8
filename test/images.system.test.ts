/**
 * Images end to end: a Dockerfile app, an npm app and a pip app, each built in a virtual machine and live; the same release
 * run by Docker and by a virtual machine; an image pushed, copied by somebody else's tool, and run from there; instances
 * that outlive their engine.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openDocker } from '../src/isolation/docker/engine.ts';
import { testImage } from '../src/isolation/microvm/qemu/contract.fixtures.ts';
import { writeApp } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { dockerMissing, installed, startDocker, type TestDocker } from './support/docker.ts';
import { type Flags, tempDir } from './support/folders.ts';
import { type KilnProcess, startKilnProcess } from './support/kiln.ts';
import { freePort, startRegistry, type TestRegistry } from './support/registry.ts';

/** Emulation, on whatever else the machine does. */
const PUBLISH_MS = 10 * 60_000;
const SECRET = 'hush-7319-secret';

const missing = ['qemu-system-x86_64', 'tar2sqfs', 'skopeo', 'docker-registry'].filter(
  (name) => !installed(name),
);
const skip =
  dockerMissing() ??
  (missing.length > 0 ? `not installed: ${missing.join(', ')} (see scripts/system-deps.sh)` : false);

/** Nothing can be pulled: everything that the steps run comes with the source. */
const DOCKERFILE = `FROM scratch AS build
COPY busybox /bin/sh
COPY busybox /bin/busybox
COPY index.html /src/index.html
ARG PUBLIC_NAME=nobody
RUN --mount=type=cache,target=/cache /bin/busybox mkdir -p /www && /bin/busybox sed "s/NAME/$PUBLIC_NAME/" /src/index.html > /www/index.html
RUN --mount=type=secret,id=API_SECRET /bin/busybox test "$(/bin/busybox wc -c < /run/secrets/API_SECRET)" = ${SECRET.length}
FROM scratch
COPY --from=build /bin/busybox /bin/busybox
COPY --from=build /www /www
EXPOSE 3000
HEALTHCHECK CMD wget -q http://localhost:3000/index.html
USER 1000
CMD ["/bin/busybox", "httpd", "-f", "-p", "3000", "-h", "/www"]
`;

async function dockerfileApp(): Promise<string> {
  const dir = await writeApp({ Dockerfile: DOCKERFILE, 'index.html': '<h1>made for NAME</h1>\n' });
  await copyFile('/bin/busybox', path.join(dir, 'busybox'));
  return dir;
}

const npmApp = () =>
  writeApp({
    'package.json': JSON.stringify({
      name: 'greeter',
      scripts: { start: 'node server.js' },
      dependencies: { ms: '2.1.3' },
    }),
    'server.js': `const ms = require('ms');
require('node:http').createServer((_, answer) => answer.end('two days are ' + ms('2 days') + ' ms')).listen(process.env.PORT);
`,
  });

const pipApp = () =>
  writeApp({
    'requirements.txt': 'flask==3.0.3\n',
    'app.py': `import os
from flask import Flask

app = Flask(__name__)


@app.get("/")
def home():
    return "flask in " + os.environ["GREETING_PLACE"]


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=int(os.environ["PORT"]))
`,
  });

describe('images', { skip, timeout: 60 * 60_000 }, () => {
  let docker: TestDocker;
  let registry: TestRegistry;
  let data_dir: string;
  let kiln: KilnProcess;
  const live: Record<string, Json> = {};

  const start = (flags: Flags) =>
    startKilnProcess(data_dir, {
      ...{ isolation: 'qemu', 'allow-emulation': 'yes', grace: '1', 'startup-limit': '300' },
      ...{ 'docker-host': `unix://${docker.socket}`, 'push-registries': registry.host },
      ...flags,
    });

  before(async () => {
    const image = await testImage();
    docker = await startDocker();
    registry = await startRegistry();
    data_dir = await tempDir('images');
    await mkdir(data_dir, { recursive: true });
    await symlink(path.dirname(image.dir), path.join(data_dir, 'builder-images'));
    kiln = await start({ 'instance-isolation': 'docker' });
  });
  after(async () => {
    await stopAll();
    await kiln?.stop();
    await docker?.stop();
    await registry?.stop();
    await rm(data_dir, { recursive: true, force: true });
  });

  /** Virtual machines outlive their engine, unless their deployment stops. */
  async function stopAll(): Promise<void> {
    for (const { deployment } of Object.values(live)) {
      await kiln.ask('POST', `/deployments/${deployment.id}/scale`, { instances: 0 });
      await retried(async () => {
        const rows: Json[] = await kiln.ask('GET', `/deployments/${deployment.id}/runtime-instances`);
        assert.ok(rows.every((row) => row.state === 'stopped'));
      });
    }
  }

  async function publish(name: string, dir: string, env: Json = {}): Promise<Json> {
    const deployment = await kiln.deployment(name);
    if (Object.keys(env).length > 0) await kiln.ask('POST', `/deployments/${deployment.id}/env`, env);
    const sent = await kiln.publish(dir, { deployment_id: deployment.id, wait: 0 });
    const version = await kiln.settled(deployment.id, sent.version.id, PUBLISH_MS);
    const log = await kiln.buildLog(deployment.id, version.build_id);
    assert.equal(version.state, 'ready', `${JSON.stringify(version.failure)}\n${log}`);
    live[name] = { deployment: sent.deployment, version, log };
    return live[name];
  }
  const page = async (name: string, at = '/') => (await kiln.get(live[name].deployment, at)).body;

  test('an npm app is built in a virtual machine and run in a container', async () => {
    const { version } = await publish('greeter', await npmApp());
    assert.equal(await page('greeter'), 'two days are 172800000 ms');
    const release = await kiln.ask('GET', `/releases/${version.release_id}`);
    assert.deepEqual([release.kind, release.artifact_manifest.layers], ['oci', 2]);
    const build = await kiln.ask('GET', `/deployments/${version.deployment_id}/builds/${version.build_id}`);
    assert.ok(build.report.hosts.length > 0 && build.report.bytes_in > 0, JSON.stringify(build.report));
  });

  test('a pip app as well', async () => {
    await publish('snake', await pipApp(), { env: { GREETING_PLACE: 'a machine' } });
    assert.equal(await page('snake'), 'flask in a machine');
  });

  test('a Dockerfile is built in a virtual machine: stages, cache and secret mounts, port, user and probe', async () => {
    const at_build = true;
    const env = {
      vars: [
        { name: 'PUBLIC_NAME', value: 'everybody', at_build },
        { name: 'API_SECRET', value: SECRET, at_build, is_secret: true },
      ],
    };
    const { version, log } = await publish('boxed', await dockerfileApp(), env);
    assert.match(await page('boxed'), /made for everybody/);
    assert.equal(version.health_check_path, '/index.html');
    assert.equal(version.runtime_port, 3000);
    assert.ok(!log.includes(SECRET));
    const image = Buffer.from(
      await (
        await fetch(`${kiln.api_url}/api/v1/releases/${version.release_id}/image`, {
          headers: { authorization: `Bearer ${kiln.key}` },
        })
      ).arrayBuffer(),
    );
    assert.ok(image.length > 100_000 && !image.includes(SECRET));
  });

  test('rebuilt in other machines they are the same, to the byte', async () => {
    for (const name of ['greeter', 'boxed']) {
      const { version } = live[name];
      let operation = await kiln.ask(
        'POST',
        `/deployments/${version.deployment_id}/versions/${version.id}/verify`,
        {},
      );
      while (operation.finished_at === null)
        operation = await kiln.ask('GET', `/operations/${operation.id}?wait=60`);
      assert.equal(operation.failure, null, JSON.stringify(operation.failure));
      assert.ok(operation.result.reproducible, `${name}: ${JSON.stringify(operation.result)}`);
    }
  });

  test('pushed, copied by skopeo to another registry, and run there by Docker', async () => {
    const other = await startRegistry();
    try {
      const { version } = live.boxed;
      const pushed = await kiln.ask('POST', `/releases/${version.release_id}/push`, {
        reference: `${registry.host}/boxed:1`,
      });
      assert.match(pushed.reference, /@sha256:[0-9a-f]{64}$/);
      const from = `docker://${pushed.reference}`;
      const tls = ['--src-tls-verify=false', '--dest-tls-verify=false'];
      execFileSync('skopeo', ['copy', ...tls, '--preserve-digests', from, `docker://${other.host}/boxed:1`]);
      const port = await freePort();
      const client = (...args: string[]) =>
        execFileSync('/usr/bin/docker', ['-H', `unix://${docker.socket}`, ...args], {
          encoding: 'utf8',
        }).trim();
      // This daemon has no bridge: its container shares the host's network.
      const run = ['run', '--detach', '--network=host', `${other.host}/boxed:1`];
      const id = client(...run, '/bin/busybox', 'httpd', '-f', '-p', `127.0.0.1:${port}`, '-h', '/www');
      const answer = await retried(() => fetch(`http://127.0.0.1:${port}/`));
      assert.match(await answer.text(), /made for everybody/);
      client('rm', '--force', id);
    } finally {
      await other.stop();
    }
  });

  test('containers go on when the engine is killed, and the next engine takes them over', async () => {
    const containers = async () =>
      (await openDocker(docker.socket).client().listContainers()).map((one) => one.Id).sort();
    const running = await containers();
    assert.equal(running.length, 3);
    await kiln.kill();
    assert.deepEqual(await containers(), running);
    kiln = await start({ 'instance-isolation': 'docker' });
    assert.equal(await page('greeter'), 'two days are 172800000 ms');
    assert.deepEqual(await containers(), running, 'none was restarted');
    const [instance] = await kiln.ask('GET', `/deployments/${live.greeter.deployment.id}/runtime-instances`);
    assert.deepEqual([instance.state, instance.restart_count], ['healthy', 0]);
  });

  test('the same releases are run by virtual machines', { timeout: PUBLISH_MS }, async () => {
    assert.deepEqual(Object.keys(live).sort(), ['boxed', 'greeter', 'snake']);
    await kiln.stop();
    kiln = await start({ 'instance-isolation': 'qemu' });
    assert.match(await retried(() => content('boxed')), /made for everybody/);
    assert.equal(await retried(() => content('greeter')), 'two days are 172800000 ms');
    assert.equal(await retried(() => content('snake')), 'flask in a machine');
  });

  test('an npm app is built in a container, on the same base', { timeout: PUBLISH_MS }, async () => {
    // An engine with Docker would not know of the virtual machines.
    await stopAll();
    await kiln.stop();
    kiln = await start({ isolation: 'docker', 'instance-isolation': 'docker' });
    const { version, log } = await publish('contained', await npmApp());
    assert.equal(await page('contained'), 'two days are 172800000 ms');
    const { kind, artifact_manifest } = await kiln.ask('GET', `/releases/${version.release_id}`);
    assert.deepEqual([kind, artifact_manifest.layers], ['oci', 2], log);
  });

  async function content(name: string): Promise<string> {
    const answer = await kiln.get(live[name].deployment);
    assert.equal(answer.status, 200, answer.body);
    return answer.body;
  }
});

/** Until it works, for ten minutes. */
async function retried<T>(work: () => Promise<T>): Promise<T> {
  for (const give_up_at = Date.now() + PUBLISH_MS; ; ) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > give_up_at) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

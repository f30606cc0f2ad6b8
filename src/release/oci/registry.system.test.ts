/** Against the registry that most people run, and with skopeo on the other side. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import path from 'node:path';
import { it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { KilnError } from '../../domain/errors.ts';
import { importArchive } from './archive.ts';
import { openImage } from './image.ts';
import { imageOf, type Place, place } from './layers.fixtures.ts';
import { pullImage, pushImage } from './transfer.ts';

const MAX_MS = 60_000;
const run = async (tool: string, ...args: string[]) =>
  (await promisify(execFile)(tool, args, { timeout: MAX_MS })).stdout;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** bcrypt of `se:cret`. */
const USERS = 'me:$2b$04$s.UfloaKMN95sRGYe7PMA.Nu.4FXChKtXp78MZQSBvQbSpXvb9TT.\n';

async function registry(at: Place, name: string, o: { users?: string; tls?: boolean } = {}) {
  const dir = path.join(at.dir, name);
  await mkdir(dir);
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const auth = o.users ? `auth: {htpasswd: {realm: test, path: ${dir}/users}}\n` : '';
  const [key, cert] = [path.join(dir, 'key.pem'), path.join(dir, 'cert.pem')];
  if (o.tls) {
    const subject = ['-subj', '/CN=kiln test', '-addext', 'subjectAltName=IP:127.0.0.1'];
    await run(
      'openssl',
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '2',
      ...subject,
      '-keyout',
      key,
      '-out',
      cert,
    );
  }
  const tls = o.tls ? `, tls: {certificate: ${cert}, key: ${key}}` : '';
  if (o.users) await writeFile(path.join(dir, 'users'), o.users);
  await writeFile(
    path.join(dir, 'config.yml'),
    `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${dir}/data}}\nhttp: {addr: "${host}"${tls}}\n${auth}`,
  );
  const server = spawn('docker-registry', ['serve', path.join(dir, 'config.yml')], { stdio: 'ignore' });
  const exited = once(server, 'exit');
  const listens = () =>
    new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    });
  for (let i = 0; i < 200 && !(await listens()); i++) await pause(50);
  return {
    host,
    cert,
    async [Symbol.asyncDispose]() {
      server.kill('SIGKILL');
      await exited;
    },
  };
}

/** Three layers, one of them larger than several pieces. */
async function anImage(at: Place) {
  const large = Array.from({ length: 400_000 }, (_, i) => (i * 2_654_435_761).toString(36)).join('');
  const image = await imageOf(at.objects, [
    [{ name: 'bin/sh', content: 'sh', mode: 0o755 }],
    [{ name: 'large', content: large }],
    [{ name: 'workspace/main', content: 'main' }],
  ]);
  return openImage(at.objects, image.digest, { images_dir: at.images_dir });
}

it('an image goes to one registry, by skopeo to another, and back, unchanged', {
  timeout: MAX_MS,
}, async () => {
  await using at = await place();
  await using there = await place();
  await using first = await registry(at, 'first');
  await using second = await registry(at, 'second');
  const image = await anImage(at);
  const access = { chunk_bytes: 300_000 };
  const pushed = await pushImage({ image, reference: `${first.host}/team/app:1`, access });
  assert.equal(pushed.skipped, 0);
  assert.ok(image.manifest.layers[1]!.size > 3 * access.chunk_bytes, 'it went in pieces');
  const insecure = ['--src-tls-verify=false', '--dest-tls-verify=false'];
  const inspected = JSON.parse(
    await run('skopeo', 'inspect', '--tls-verify=false', `docker://${first.host}/team/app:1`),
  );
  assert.equal(inspected.Digest, image.digest);
  await run(
    'skopeo',
    'copy',
    ...insecure,
    `docker://${pushed.pinned}`,
    `docker://${second.host}/other/app:2`,
  );
  const pulled = await pullImage({
    ...{ objects: there.objects, reference: `${second.host}/other/app:2`, access: {} },
    ...{ max_bytes: 1e8, architecture: 'amd64' },
  });
  assert.equal(pulled.digest, image.digest);
  const again = await pushImage({
    image,
    reference: `${first.host}/team/copy:1`,
    access,
    mount_from: 'team/app',
  });
  assert.deepEqual([again.skipped, again.sent_bytes < 10_000], [4, true], 'every blob was mounted');
});

it('a registry that wants a password gets it, and nobody without it gets in', {
  timeout: MAX_MS,
}, async () => {
  await using at = await place();
  await using closed = await registry(at, 'closed', { users: USERS });
  const image = await anImage(at);
  const reference = `${closed.host}/team/app:1`;
  const credentials = { username: 'me', password: 'se:cret' };
  await pushImage({ image, reference, access: { credentials } });
  const isDenied = (error: unknown) => error instanceof KilnError && error.code === 'FORBIDDEN';
  await assert.rejects(pushImage({ image, reference, access: {} }), isDenied);
  const wrong = { ...credentials, password: 'secret' };
  const pull = { objects: at.objects, reference, max_bytes: 1e8, architecture: 'amd64' };
  await assert.rejects(pullImage({ ...pull, access: { credentials: wrong } }), isDenied);
  assert.equal((await pullImage({ ...pull, access: { credentials } })).digest, image.digest);
});

it('speaks TLS, and only with whom it trusts', { timeout: MAX_MS }, async () => {
  await using at = await place();
  await using secure = await registry(at, 'secure', { tls: true });
  const image = await anImage(at);
  const reference = `${secure.host}/team/app:1`;
  const access = { scheme: 'https' as const, backoff_ms: 1 };
  const isUntrusted = (error: unknown) =>
    error instanceof KilnError && /cannot be reached \(\w*SELF_SIGNED\w*\)/.test(error.message);
  await assert.rejects(pushImage({ image, reference, access }), isUntrusted);
  const ca = [await readFile(secure.cert, 'utf8')];
  await pushImage({ image, reference, access: { ...access, ca } });
});

it('takes the archives that skopeo writes', { timeout: MAX_MS }, async () => {
  await using at = await place();
  await using there = await place();
  await using first = await registry(at, 'first');
  const image = await anImage(at);
  const { pinned } = await pushImage({ image, reference: `${first.host}/team/app:1`, access: {} });
  for (const kind of ['oci-archive', 'docker-archive']) {
    const archive = path.join(at.dir, `${kind}.tar`);
    await run('skopeo', 'copy', '--src-tls-verify=false', `docker://${pinned}`, `${kind}:${archive}:x:1`);
    const brought = await importArchive({
      ...{ objects: there.objects, archive, tmp_dir: there.tmp_dir, name: kind },
      ...{ max_bytes: 1e8, normalise: null, architecture: 'amd64' },
    });
    assert.deepEqual(brought.config.rootfs, image.config.rootfs);
    if (kind === 'oci-archive') assert.equal(brought.digest, image.digest);
    const opened = await openImage(there.objects, brought.digest, { images_dir: there.images_dir });
    assert.equal(await run('unsquashfs', '-cat', (await opened.squashfs())[0]!, 'workspace/main'), 'main');
  }
  assert.ok((await readFile(path.join(at.dir, 'oci-archive.tar'))).length > 0);
});

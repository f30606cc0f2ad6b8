import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type http from 'node:http';
import { it } from 'node:test';
import { inspect } from 'node:util';
import { KilnError } from '../../domain/errors.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';
import { type FakeOptions, type FakeRegistry, fakeRegistry } from './fake-registry.fixtures.ts';
import { openImage } from './image.ts';
import { imageOf, type Place, place } from './layers.fixtures.ts';
import type { RegistryAccess } from './registry.ts';
import { parseChallenge } from './registry-auth.ts';
import { headersFor, resolveLocation } from './registry-http.ts';
import { hasBlob } from './store.ts';
import { pullImage, pushImage } from './transfer.ts';

const QUICK: RegistryAccess = { backoff_ms: 1, idle_ms: 2000 };
const code =
  (of: string, pattern = /./) =>
  (error: unknown) =>
    error instanceof KilnError && error.code === of && pattern.test(error.message);

/** 60 kB that no gzip makes smaller. */
const NOISE = randomBytes(30_000).toString('hex');

async function setup(at: Place, o: FakeOptions = {}) {
  const registry = await fakeRegistry(o);
  const image = await imageOf(at.objects, [
    [{ name: 'a', content: 'a' }],
    [{ name: 'noise', content: NOISE }],
  ]);
  const opened = await openImage(at.objects, image.digest, { images_dir: at.images_dir });
  const reference = `${registry.host}/team/app:1`;
  const push = (access: RegistryAccess = {}, mount_from: string | null = null) =>
    pushImage({ image: opened, reference, access: { ...QUICK, ...access }, mount_from });
  const pull = (
    into: Place,
    access: RegistryAccess = {},
    more: { reference?: string; max_bytes?: number } = {},
  ) =>
    pullImage({
      ...{ objects: into.objects, reference, max_bytes: 1e6, architecture: 'amd64', ...more },
      access: { ...QUICK, ...access },
    });
  return {
    registry,
    image,
    push,
    pull,
    reference,
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  };
}

const paths = ({ asked }: FakeRegistry, method: string, part: string) =>
  asked.filter((one) => one.method === method && one.path.includes(part));

it('pushes and pulls an image; the second time nothing is sent', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at);
  const pushed = await of.push();
  assert.equal(pushed.pinned, `${of.registry.host}/team/app@${of.image.digest}`);
  assert.equal(pushed.skipped, 0);
  assert.equal((await of.push()).skipped, 3);
  const pulled = await of.pull(there);
  assert.equal(pulled.digest, of.image.digest);
  assert.equal(pulled.pinned, pushed.pinned);
  for (const { key, size_bytes } of pulled.blobs)
    assert.equal((await there.objects.head(key))?.size_bytes, size_bytes);
  of.registry.asked.length = 0;
  await of.pull(there, {}, { reference: pushed.pinned });
  assert.deepEqual(paths(of.registry, 'GET', '/blobs/'), []);
  assert.ok(of.registry.asked.every(({ authorization }) => authorization === undefined));
});

const USER = { username: 'me', password: 'se:cret' };

for (const kind of ['basic', 'bearer'] as const)
  it(`signs in with ${kind}, and says nothing of the password when it is wrong`, async () => {
    await using at = await place();
    await using there = await place();
    await using of = await setup(at, { auth: { kind, ...USER } });
    await of.push({ credentials: USER });
    assert.equal((await of.pull(there, { credentials: USER })).digest, of.image.digest);
    const wrong = { username: 'me', password: 'hunter2' };
    for (const credentials of [wrong, null]) {
      const failure = await of.pull(there, { credentials }).catch((error) => error);
      assert.ok(code('FORBIDDEN', /does not let us in/)(failure), String(failure));
      assert.doesNotMatch(inspect(failure, { depth: 9 }), /hunter2|Basic |aHVudGVy/);
    }
  });

it('asks for a token of the right scope, anonymously where it has no credentials', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at, { auth: { kind: 'bearer' } });
  await of.push({}, 'team/base');
  await of.pull(there);
  const scopes = paths(of.registry, 'GET', '/token').map(
    ({ path }) => new URL(path, 'http://x').searchParams,
  );
  assert.ok(scopes.every((query) => query.get('service') === 'fake, here'));
  const said = new Set(scopes.map((query) => query.getAll('scope').join(' ')));
  assert.deepEqual([...said].sort(), [
    'repository:team/app:pull',
    'repository:team/app:pull,push',
    'repository:team/app:pull,push repository:team/base:pull',
  ]);
});

it('takes blobs over from another repository, and uploads where it may not', async () => {
  await using at = await place();
  await using of = await setup(at, { mountable: 'team/base' });
  const [first] = of.image.manifest.layers;
  of.registry.blobs.set(first!.digest, Buffer.from('there'));
  of.registry.faults.push({
    match: new RegExp(`HEAD .*${first!.digest}`),
    act: (_, response) => !!response.writeHead(404).end(),
  });
  assert.equal((await of.push({}, 'team/base')).skipped, 1);
  assert.equal(paths(of.registry, 'POST', 'from=team%2Fbase').length, 3);
});

it('pushes in pieces, and goes on where an interrupted one stopped', async () => {
  await using at = await place();
  await using of = await setup(at, { min_chunk: 8000 });
  const cut = async (request: http.IncomingMessage, response: http.ServerResponse) => {
    request.once('data', () => response.destroy());
    return true;
  };
  const unsaid = (_: http.IncomingMessage, response: http.ServerResponse) => {
    // The piece is stored, but the answer never arrives.
    response.end = () => response.destroy() as never;
    return false;
  };
  const busy = (request: http.IncomingMessage, response: http.ServerResponse) => {
    request.resume();
    return !!response.writeHead(503).end();
  };
  of.registry.faults.push(
    { match: /^PATCH/, act: cut },
    { match: /^PATCH/, act: unsaid },
    { match: /^PATCH/, act: busy },
  );
  const pushed = await of.push({ chunk_bytes: 4000 });
  assert.equal(pushed.skipped, 0);
  const noise = of.image.manifest.layers[1]!;
  assert.equal(of.registry.blobs.get(noise.digest)?.length, noise.size);
  assert.ok(paths(of.registry, 'PATCH', '').length >= Math.ceil(noise.size / 8000) + 2);
});

it('starts a whole upload again after an interruption', async () => {
  await using at = await place();
  await using of = await setup(at);
  const cut = (request: http.IncomingMessage, response: http.ServerResponse) => {
    request.once('data', () => response.destroy());
    return true;
  };
  of.registry.faults.push({ match: /^PUT .*uploads/, act: cut });
  await of.push();
  assert.equal(of.registry.blobs.size, 3);
});

it('goes on with a blob that breaks off, also when the registry knows no ranges', async () => {
  await using at = await place();
  await using of = await setup(at);
  await of.push();
  const noise = of.image.manifest.layers[1]!;
  const bytes = of.registry.blobs.get(noise.digest)!;
  const match = new RegExp(`GET .*${noise.digest}`);
  const half = (_: http.IncomingMessage, response: http.ServerResponse) => {
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 10_000), () => response.destroy());
    return true;
  };
  const whole = (_: http.IncomingMessage, response: http.ServerResponse) =>
    !!response.writeHead(200).end(bytes);
  for (const second of [[], [{ match, act: whole }]]) {
    await using there = await place();
    of.registry.asked.length = 0;
    of.registry.faults.push({ match, act: half }, ...second);
    await of.pull(there);
    const ranges = paths(of.registry, 'GET', noise.digest).map(({ range }) => range);
    assert.equal(ranges.length, 2);
    assert.match(ranges[1]!, /^bytes=\d+-$/);
    assert.ok(await hasBlob(there.objects, noise));
  }
});

it('waits for a registry that is busy, and gives up on one that stays so', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at);
  await of.push();
  const busy = {
    match: /^GET .*manifests/,
    act: (_: unknown, response: http.ServerResponse) => !!response.writeHead(429).end(),
  };
  of.registry.faults.push(busy, busy);
  await of.pull(there);
  of.registry.faults.push(busy, busy, busy, busy);
  await assert.rejects(of.pull(there), code('STORAGE_FAILED', /answered 429/));
  of.registry.faults.length = 0;
  const silent = { match: /^GET .*manifests/, act: () => true };
  of.registry.faults.push(silent, silent, silent, silent);
  await assert.rejects(of.pull(there, { idle_ms: 50 }), code('STORAGE_FAILED', /no answer for 0\.05 s/));
});

it('stores nothing that is not what its digest says', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at);
  await of.push();
  const [layer] = of.image.manifest.layers;
  const good = of.registry.blobs.get(layer!.digest)!;
  for (const bad of [Buffer.from(good).fill(0xff, 3, 4), good.subarray(1), Buffer.concat([good, good])]) {
    of.registry.blobs.set(layer!.digest, bad);
    await assert.rejects(of.pull(there), KilnError);
    assert.equal(await there.objects.head(`blobs/sha256/${layer!.digest.slice(7)}`), null);
    assert.equal(await there.objects.head(`blobs/sha256/${of.image.digest.slice(7)}`), null);
  }
  of.registry.manifests.set(of.image.digest, { bytes: Buffer.from('{}'), type: MEDIA_TYPES.manifest });
  const pinned = `${of.registry.host}/team/app@${of.image.digest}`;
  await assert.rejects(of.pull(there, {}, { reference: pinned }), code('INVALID_ARCHIVE', /other bytes/));
});

it('keeps its limits', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at);
  await of.push();
  await assert.rejects(of.pull(there, {}, { max_bytes: 1000 }), code('SOURCE_TOO_LARGE', /limit is 1000/));
  of.registry.manifests.set('big', { bytes: Buffer.alloc(5e6, ' '), type: MEDIA_TYPES.manifest });
  await assert.rejects(
    of.pull(there, {}, { reference: `${of.registry.host}/team/app:big` }),
    /more than 4194304 bytes/,
  );
  await assert.rejects(
    of.pull(there, {}, { reference: `${of.registry.host}/team/app:none` }),
    code('NOT_FOUND', /no such tag/),
  );
  await assert.rejects(
    pushImage({
      image: { ...of.image, blob: () => assert.fail() },
      reference: `${of.registry.host}/a@sha256:${'0'.repeat(64)}`,
      access: {},
    }),
    code('VALIDATION_ERROR'),
  );
});

it('picks the image of this machine out of an index', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at);
  await of.push();
  const entry = {
    mediaType: MEDIA_TYPES.manifest,
    digest: of.image.digest,
    size: 1,
    platform: { architecture: 'amd64', os: 'linux' },
  };
  const other = {
    ...entry,
    digest: `sha256:${'0'.repeat(64)}`,
    platform: { architecture: 'arm64', os: 'linux' },
  };
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [other, entry] }));
  of.registry.manifests.set('multi', { bytes: index, type: MEDIA_TYPES.index });
  const pulled = await of.pull(there, {}, { reference: `${of.registry.host}/team/app:multi` });
  assert.equal(pulled.digest, of.image.digest);
});

it('takes no credentials along to another host', async () => {
  await using at = await place();
  await using there = await place();
  await using storage = await fakeRegistry();
  await using of = await setup(at, {
    auth: { kind: 'basic', ...USER },
    redirect_blobs: `http://${storage.host}`,
  });
  await of.push({ credentials: USER });
  for (const [digest, bytes] of of.registry.blobs) storage.blobs.set(digest, bytes);
  await of.pull(there, { credentials: USER });
  assert.equal(storage.asked.length, 3);
  assert.ok(storage.asked.every(({ authorization }) => authorization === undefined));
  const round = {
    match: /^GET .*blobs/,
    act: (request: http.IncomingMessage, response: http.ServerResponse) =>
      !!response.writeHead(302, { location: request.url }).end(),
  };
  await using third = await place();
  of.registry.faults.push(...Array.from({ length: 20 }, () => round));
  await assert.rejects(
    of.pull(third, { credentials: USER }),
    code('STORAGE_FAILED', /redirects more than 5 times/),
  );
});

it('answers no challenge of a host that it was sent on to', async () => {
  await using at = await place();
  await using there = await place();
  await using thief = await fakeRegistry();
  await using of = await setup(at, {
    auth: { kind: 'basic', ...USER },
    redirect_blobs: `http://${thief.host}`,
  });
  await of.push({ credentials: USER });
  for (const challenge of ['Basic realm="x"', `Bearer realm="http://${thief.host}/token"`]) {
    const ask = (_: unknown, response: http.ServerResponse) =>
      !!response.writeHead(401, { 'www-authenticate': challenge }).end();
    thief.faults.push(...Array.from({ length: 9 }, () => ({ match: /blobs/, act: ask })));
    await assert.rejects(of.pull(there, { credentials: USER }), code('FORBIDDEN'));
  }
  assert.ok(
    thief.asked.every(({ authorization, path }) => authorization === undefined && !path.includes('token')),
  );
});

it('goes through the proxy of the environment, except to where it is told not to', async () => {
  await using at = await place();
  await using there = await place();
  await using of = await setup(at);
  await of.push();
  const proxy_env = { HTTP_PROXY: `http://${of.registry.host}`, NO_PROXY: 'other.test' };
  of.registry.asked.length = 0;
  await of.pull(there, { scheme: 'http', proxy_env }, { reference: 'registry.test/team/app:1' });
  assert.match(of.registry.asked[0]!.path, /^http:\/\/registry\.test\/v2\/team\/app\/manifests\/1$/);
  const direct = of.pull(there, { scheme: 'http', proxy_env }, { reference: 'other.test/team/app:1' });
  await assert.rejects(direct, code('STORAGE_FAILED', /cannot be reached/));
});

it('goes from https to nothing less', () => {
  const from = new URL('https://registry.example/v2/a');
  assert.equal(resolveLocation('/x?y=%2B', from).href, 'https://registry.example/x?y=%2B');
  assert.equal(resolveLocation('https://u:p@s3.example/x', from).href, 'https://s3.example/x');
  for (const evil of [
    'http://registry.example/x',
    'http://127.0.0.1/x',
    'file:///etc/passwd',
    'ftp://x/y',
    'http://',
  ])
    assert.throws(() => resolveLocation(evil, from), KilnError, evil);
  const local = new URL('http://localhost:5000/');
  assert.throws(() => resolveLocation('http://10.0.0.1/x', local), KilnError);
  assert.equal(resolveLocation('http://10.0.0.1/x', local, 'http').host, '10.0.0.1');
  const headers = { authorization: 'Bearer x', accept: '*/*' };
  assert.deepEqual(headersFor(new URL('https://registry.example:444/'), from, headers), { accept: '*/*' });
  assert.deepEqual(headersFor(new URL('https://registry.example/other'), from, headers), headers);
});

it('reads challenges as registries write them', () => {
  assert.deepEqual(
    {
      ...parseChallenge('Bearer realm="https://a/t?x=1,2",service=reg,scope="repository:a/b:pull,push"')
        ?.parameters,
    },
    {
      realm: 'https://a/t?x=1,2',
      service: 'reg',
      scope: 'repository:a/b:pull,push',
    },
  );
  assert.equal(parseChallenge('Basic realm="a", Bearer realm="b"')?.parameters.realm, 'b');
  assert.equal(parseChallenge('Negotiate, Basic realm="say \\"x\\""')?.parameters.realm, 'say "x"');
  assert.equal(parseChallenge('Negotiate abc'), null);
  assert.equal(parseChallenge('x'.repeat(10_000)), null);
});

/**
 * An image of an app of 20,000 files and 160 MB: Kiln's assembly, against `tar | gzip -1 | sha256sum` (what the layer
 * costs at the least) and `docker build --no-cache` of `FROM scratch; COPY . /workspace/` where a Docker daemon answers
 * (DOCKER_HOST says which). The runs alternate. Kiln's result is a layer in the object store, flushed; Docker's build
 * context goes through its socket, and its layer stays uncompressed.
 *
 * `node bench/images.ts`; prints a table and a line of JSON.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { assembleImage, imageFromRootfsTar } from '../src/release/oci/assemble.ts';
import { openImage } from '../src/release/oci/image.ts';
import { fileObjectStore } from '../src/store/objects/files.ts';
import { type Distribution, distribution, show } from './report.ts';
import { makeWorkspace } from './snapshot.ts';

const ROUNDS = 5;
const MAX_MS = 300_000;
const call = async (tool: string, ...args: string[]) => {
  await promisify(execFile)(tool, args, { timeout: MAX_MS });
};

export async function run(): Promise<Record<string, Distribution>> {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-bench-images-'));
  try {
    const root = path.join(dir, 'app');
    await makeWorkspace(root);
    await mkdir(path.join(dir, 'tmp'));
    const dockerfile = path.join(dir, 'Dockerfile');
    await writeFile(dockerfile, 'FROM scratch\nCOPY . /workspace/\n');
    const has_docker = await call('docker', 'version').then(
      () => true,
      () => false,
    );
    if (!has_docker) console.log('docker build: left out, no Docker daemon answers (set DOCKER_HOST)');
    return await measure(dir, root, has_docker ? dockerfile : null);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(dir: string, root: string, dockerfile: string | null) {
  const times: Record<string, number[]> = { kiln: [], 'tar | gzip -1 | sha256sum': [] };
  const timed = async (name: string, action: () => Promise<unknown>) => {
    const started_ms = performance.now();
    await action();
    times[name] ??= [];
    times[name].push(performance.now() - started_ms);
  };
  const digests = new Set<string>();
  for (let round = 0; round < ROUNDS; round++) {
    await timed('kiln', async () => digests.add(await assemble(dir, root, round)));
    await timed('tar | gzip -1 | sha256sum', () =>
      call('sh', '-c', 'tar --sort=name -cf - -C "$1" . | gzip -1 | sha256sum', 'sh', root),
    );
    if (!dockerfile) continue;
    const build = ['build', '--no-cache', '--quiet', '--tag', 'kiln-bench', '--file', dockerfile, root];
    await timed('docker build', () => call('docker', ...build));
    await call('docker', 'rmi', '--force', 'kiln-bench');
  }
  if (digests.size !== 1) throw new Error(`the same app has ${digests.size} digests`);
  const results = Object.fromEntries(Object.entries(times).map(([name, of]) => [name, distribution(of)]));
  show('image of 20,000 files, 160 MB (ms)', results);
  return results;
}

async function assemble(dir: string, root: string, round: number): Promise<string> {
  const tmp_dir = path.join(dir, 'tmp');
  const objects = fileObjectStore(path.join(dir, `objects-${round}`));
  const of = { objects, tmp_dir, name: 'image', max_bytes: 2 ** 31 };
  const nothing = Readable.from([Buffer.alloc(1024)]);
  const base = await imageFromRootfsTar({ ...of, tar: nothing, config: {}, created_by: 'bench' });
  const { digest } = await assembleImage({
    ...of,
    base: await openImage(objects, base.digest, { images_dir: dir }),
    root,
    prefix: 'workspace/',
    run: { command: 'true', cwd: '/workspace', env: {}, port: null, user: null, labels: {} },
  });
  return digest;
}

if (import.meta.main) await run();

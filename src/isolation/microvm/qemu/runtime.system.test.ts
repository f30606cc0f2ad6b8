/** Instances of images in QEMU: answering on their port, ending in every way, and outliving an engine. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ImageRunConfig } from '../../../domain/image.ts';
import { flatten } from '../../../release/oci/flatten.ts';
import { openImage } from '../../../release/oci/image.ts';
import { type Item, readTar, imageOf as storeImage } from '../../../release/oci/layers.fixtures.ts';
import { fileObjectStore } from '../../../store/objects/files.ts';
import { LIMITS, until } from '../../contract/harness.ts';
import type { MachineImage } from '../../image.ts';
import type { ImageRuntime, InstanceSpec } from '../../runtime.ts';
import { builderAsImage, makeInstances, TEST_PARTS, testImage } from './contract.fixtures.ts';
import { qemuDriver } from './driver.ts';

const builder = await testImage();
const dir = await mkdtemp(join(tmpdir(), 'kiln-qemu-'));
const options = {
  ...{
    data_dir: join(dir, 'data'),
    work_dir: join(dir, 'data/machines'),
    host_env: { PATH: process.env.PATH },
  },
  ...{ ...TEST_PARTS, image: builder },
};
await mkdir(options.work_dir, { recursive: true });
const driver = qemuDriver(options);
const tested = await driver.selfTest();
const skip = tested.ok ? false : `qemu does not work here: ${tested.reason}`;

const SERVER = `
const { createServer } = require('http');
createServer((q, s) => {
  console.log('asked', q.url);
  s.end(JSON.stringify({ id: process.getuid(), cwd: process.cwd(), home: process.env.HOME, word: process.env.WORD }));
}).listen(process.env.PORT, () => console.log('ready'));
process.on('SIGTERM', () => { console.log('bye'); process.exit(0); });`;

const imageOf = (config: ImageRunConfig) => builderAsImage(builder, config);

const file = (name: string, mode = 0o644): Item => ({ name, content: `${name}\n`, mode });
const BASE: Item[] = [
  { name: 'data/', mode: 0o711, uid: 5 },
  ...[file('data/kept', 0o4755), file('data/gone'), file('data/changed'), file('data/replaced/by')],
  ...[{ name: 'data/opaque/' }, file('data/opaque/hidden'), file('data/opaque/also/hidden')],
  { name: 'data/link', type: 'symlink', linkname: 'real' } as Item,
  ...[{ name: 'data/real/', uid: 7 }, file('data/real/below')],
];
const ABOVE: Item[][] = [
  [
    file('data/new'),
    { name: 'data/.wh.gone' },
    { ...file('data/changed'), content: 'again\n' },
    file('data/mine'),
  ],
  [
    ...[{ name: 'data/.wh.mine' }, { name: 'data/opaque/' }, { name: 'data/opaque/.wh..wh..opq' }],
    ...[
      file('data/opaque/own'),
      file('data/link/above'),
      { name: 'data/.wh.replaced' },
      file('data/replaced'),
    ],
    { name: 'data/hard', type: 'link', linkname: 'data/kept' } as Item,
  ],
];
/** The image has no programs: the agent's own shell is enough. */
const LOOK = `cd /data; b=/dev/.kiln/busybox
$b find . | $b sort | while read -r name; do
  kind=$($b stat -c %F "$name"); content=
  [ "$kind" = 'regular file' ] && content=$($b cat "$name")
  echo "$name $kind $($b stat -c '%a %u' "$name") $content"
done
echo --
$b cat gone 2>/dev/null || echo cannot be opened
echo again > gone && $b cat gone
$b rm -r opaque && $b mkdir opaque && $b ls opaque && echo empty`;

/** An image on a base, as two squashfs files, and what its /data holds by the rules of layers, line by line. */
async function layeredImage(): Promise<{ image: MachineImage; whole: string[] }> {
  const objects = fileObjectStore(join(dir, 'objects'));
  const images_dir = join(dir, 'images');
  const below = await storeImage(objects, [BASE]);
  const config = { Cmd: ['/dev/.kiln/busybox', 'sh', '-c', LOOK] };
  const { digest, tars } = await storeImage(objects, [BASE, ...ABOVE], { config });
  const base = await openImage(objects, below.digest, { images_dir });
  const layers = tars.map((bytes) => ({ diff_id: null, open: async () => Readable.from([bytes]) }));
  const all = await readTar(flatten({ layers }));
  const kinds: Record<string, string> = {
    file: 'regular file',
    link: 'regular file',
    symlink: 'symbolic link',
  };
  const whole = [...all]
    .filter(([name]) => name.startsWith('data/'))
    .map(([name, of]) => {
      const at = name.slice('data/'.length).replace(/\/$/, '');
      const { mode, uid, content } = of.type === 'link' ? all.get(of.link)! : of;
      const shown = of.type === 'symlink' ? 0o777 : mode & 0o7777;
      return `./${at} ${kinds[of.type] ?? of.type} ${shown.toString(8)} ${uid} ${content.trim()}`.replace(
        /^\.\/ /,
        '. ',
      );
    });
  return { image: await openImage(objects, digest, { images_dir, base }), whole: whole.sort() };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

let count = 0;
async function newSpec(o: Partial<InstanceSpec> = {}): Promise<InstanceSpec & { output: () => string }> {
  let output = '';
  return {
    id: `ins_${process.pid}x${count++}`,
    deployment_id: 'dep_1',
    image: imageOf({
      Cmd: ['node', '-e', SERVER],
      User: 'app',
      WorkingDir: '/workspace',
      Env: ['WORD=image'],
    }),
    command: null,
    env: { PORT: '3000' },
    host_port: await freePort(),
    guest_port: 3000,
    limits: { ...LIMITS, time_ms: null, memory_bytes: 512 << 20, on_log_limit: 'drop' },
    read_only_root: false,
    on_output: (_, chunk) => {
      output += chunk.toString();
    },
    ...o,
    output: () => output,
  };
}

const ask = async (port: number, path = '/') => (await fetch(`http://127.0.0.1:${port}${path}`)).json();

describe('instances in QEMU', { skip }, () => {
  let runtime: ImageRuntime;
  before(() => {
    runtime = makeInstances(options, driver);
  });
  after(async () => {
    await runtime.sweep(new Set());
    assert.deepEqual(await readdir(join(dir, 'data/instances')).catch(() => []), []);
    await rm(dir, { recursive: true, force: true });
  });

  it('runs the image as its own user and answers on the forwarded port; TERM ends it', async () => {
    const spec = await newSpec({ env: { PORT: '3000', WORD: "it's" } });
    const machine = await runtime.start(spec);
    await until('it is ready', () => spec.output().includes('ready'));
    assert.deepEqual(await ask(spec.host_port), { id: 1000, cwd: '/workspace', home: '/home', word: "it's" });
    assert.deepEqual(
      (await machine.listening()).map(({ port }) => port),
      [3000],
    );
    assert.ok((await machine.usage()).memory_bytes > 5e6);
    const exit = await machine.stop(60_000);
    assert.deepEqual([exit.reason, exit.exit_code], ['killed', 0], JSON.stringify(exit));
    assert.match(spec.output(), /ready\nasked \/\nbye\n$/);
    await assert.rejects(ask(spec.host_port));
  });

  it('sees a base and what layers above it change as one file system', async () => {
    const { image, whole } = await layeredImage();
    assert.equal((await image.squashfs()).length, 2);
    const spec = await newSpec({ image });
    const exit = await (await runtime.start(spec)).exited;
    assert.deepEqual([exit.reason, exit.exit_code], ['exited', 0], spec.output());
    const [seen, after] = spec.output().split('--\n');
    assert.deepEqual(seen!.trim().split('\n'), whole, 'what is there, with modes, owners and contents');
    assert.doesNotMatch(seen!, /gone|hidden|replaced\/by/);
    assert.equal(after, 'cannot be opened\nagain\nempty\n');
  });

  it('says why a machine failed: a kernel panic, and a hypervisor that was killed', async () => {
    const panics = await newSpec({
      image: imageOf({ Cmd: ['/bin/sh', '-c', 'echo up; sleep 1; echo c > /proc/sysrq-trigger; sleep 60'] }),
    });
    const panicked = await (await runtime.start(panics)).exited;
    assert.equal(panicked.reason, 'machine_failed');
    assert.match(panicked.detail!, /kernel panicked: sysrq/);
    const spec = await newSpec();
    const machine = await runtime.start(spec);
    process.kill(machine.pid, 'SIGKILL');
    const killed = await machine.exited;
    assert.equal(killed.reason, 'machine_failed');
    assert.match(killed.detail!, /the hypervisor died \(signal SIGKILL\)/);
    assert.ok(!existsSync(join(dir, 'data/instances', spec.id)));
  });

  it('goes on without its engine, is adopted by the next, and its log continues where it was read', async () => {
    const spec = await newSpec();
    const { image: _, on_output: __, output: ___, ...plain } = spec;
    const fixture = new URL('./contract.fixtures.ts', import.meta.url).href;
    const engine_file = join(dir, 'engine.mjs');
    await writeFile(engine_file, ENGINE);
    const engine = spawn(
      process.execPath,
      [
        ...[engine_file, fixture],
        JSON.stringify({ ...options, pack: undefined, unpack: undefined, image: undefined }),
        JSON.stringify({ ...plain, config: spec.image.config }),
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let seen = '';
    engine.stdout.on('data', (chunk) => {
      seen += chunk;
    });
    await until('the app is up', () => seen.includes('ready'));
    await ask(spec.host_port, '/first');
    await until('its log was read', () => seen.includes('/first'));
    await sleep(1500);
    engine.kill('SIGKILL');
    await once(engine, 'exit');
    await ask(spec.host_port, '/alone');

    const machine = await runtime.adopt({ ...spec, logs_since: new Date() });
    assert.ok(machine !== null, 'it still runs');
    await ask(spec.host_port, '/adopted');
    await until('the log goes on', () => spec.output().includes('/adopted'));
    assert.equal(spec.output(), 'asked /alone\nasked /adopted\n');
    assert.ok((await machine.usage()).processes >= 1);
    const exit = await machine.stop(60_000);
    assert.equal(exit.reason, 'killed');
    assert.match(spec.output(), /bye\n$/);
    assert.equal(await runtime.adopt({ ...spec, logs_since: new Date() }), null);
  });

  it('lets go without ending, and sweeps what nobody keeps', async () => {
    const spec = await newSpec();
    const machine = await runtime.start(spec);
    await until('it is ready', () => spec.output().includes('ready'));
    await runtime.release();
    assert.deepEqual(await driver.sweep(new Set()), [], 'the driver leaves instances alone');
    assert.deepEqual(await runtime.sweep(new Set([spec.id])), []);
    assert.ok(await ask(spec.host_port));
    assert.deepEqual(await runtime.sweep(new Set()), [spec.id]);
    await assert.rejects(ask(spec.host_port));
    // The process is gone once Node has reaped it, a moment after it was killed.
    await until('its process is gone', () => !existsSync(`/proc/${machine.pid}`));
  });
});

const ENGINE = `
const [fixture, options, spec] = process.argv.slice(2);
const { startInstance } = await import(fixture);
await startInstance(JSON.parse(options), JSON.parse(spec));
setInterval(() => {}, 1000);
`;

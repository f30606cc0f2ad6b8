/** Builders that are booted before a build asks for one. */
import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { LIMITS, markedProcesses, until } from '../../contract/harness.ts';
import type { MachineSpec } from '../../driver.ts';
import { TEST_PARTS, testImage } from './contract.fixtures.ts';
import { qemuDriver } from './driver.ts';

const MIB = 1024 * 1024;
const CACHE_BYTES = 64 * MIB;
const dir = await mkdtemp(join(tmpdir(), 'kiln-warm-'));
const limits = { ...LIMITS, time_ms: 400_000, disk_bytes: 256 * MIB };
const options = {
  ...{ data_dir: join(dir, 'data'), work_dir: join(dir, 'data/machines'), host_env: process.env },
  ...{ ...TEST_PARTS, image: await testImage() },
  warm: {
    size: 1,
    shape: {
      ...{ memory_bytes: limits.memory_bytes, disk_bytes: limits.disk_bytes },
      ...{ input_bytes: 8 * MIB, cache_bytes: CACHE_BYTES },
    },
  },
};
await mkdir(options.work_dir, { recursive: true });
const driver = qemuDriver(options);
const tested = await driver.selfTest();
const skip = tested.ok ? false : `qemu does not work here: ${tested.reason}`;

let count = 0;
async function build(command: string, o: Partial<MachineSpec> = {}) {
  const id = `mch_${process.pid}x${count++}`;
  const workspace_dir = o.workspace_dir ?? join(dir, 'workspaces', id);
  await mkdir(workspace_dir, { recursive: true });
  let output = '';
  const machine = await driver.start({
    ...{ id, kind: 'build', cwd: '.', env: {}, command, limits, ...o, workspace_dir },
    on_output: (_, chunk) => {
      output += chunk.toString();
    },
  });
  const waited = basename(readlinkSync(`/proc/${machine.pid}/cwd`)).startsWith('warm_');
  const exit = await machine.exited;
  assert.equal(exit.exit_code, 0, `${JSON.stringify(exit)}\n${output}`);
  return { waited, output, workspace_dir, pid: machine.pid };
}
const ready = () => until('a machine waits', () => driver.waiting() === 1);

describe('warm builders in QEMU', { skip }, () => {
  after(async () => {
    await driver.close!();
    await rm(dir, { recursive: true, force: true });
  });

  it('nothing waits before the driver was chosen', async () => {
    assert.equal(driver.waiting(), 0);
    assert.deepEqual(await readdir(options.work_dir), []);
    driver.warm!();
    await ready();
  });

  it('builds get a waiting machine each, with source, result, settings and cache; none is used twice', async () => {
    const cache = { dir: join(dir, 'cache'), max_bytes: CACHE_BYTES };
    const workspace_dir = join(dir, 'app');
    for (const path of [cache.dir, workspace_dir]) await mkdir(path);
    await writeFile(join(workspace_dir, 'source.txt'), 'from the host');
    const script =
      'cat source.txt; echo " $WORD"; cat $KILN_CACHE_DIR/kept; echo kept > $KILN_CACHE_DIR/kept; ' +
      'ls /tmp /home; touch /tmp/left; cat /proc/sys/kernel/random/boot_id; date +%s > made.txt';
    const first = await build(`${script}; true`, { workspace_dir, cache, env: { WORD: "it's" } });
    assert.ok(first.waited);
    assert.match(first.output, /^from the host it's$/m);
    assert.doesNotMatch(first.output, /^kept$|\[kiln\]/m);
    assert.deepEqual(await readdir(workspace_dir), ['made.txt', 'source.txt']);

    await ready();
    const second = await build(script, { workspace_dir, cache });
    assert.ok(second.waited && second.pid !== first.pid);
    assert.match(second.output, /^kept$/m, 'the cache of the build before');
    assert.doesNotMatch(second.output, /^left$/m);
    const bootId = (output: string) => /^[0-9a-f-]{36}$/m.exec(output)![0];
    assert.notEqual(bootId(second.output), bootId(first.output));
    assert.ok((await readdir(cache.dir)).includes('cache.img'));
  });

  it('the network opens with the job: packages come through its proxy', async () => {
    await ready();
    const { waited, output } = await build('npm view ms version');
    assert.ok(waited);
    assert.match(output, /^\d+\.\d+\.\d+$/m);
  });

  it('a build without a cache sees none', async () => {
    await ready();
    const { waited, output } = await build('echo "cache:$KILN_CACHE_DIR"; ls /cache; true');
    assert.ok(waited);
    assert.match(output, /^cache:$/m);
    assert.doesNotMatch(output, /damaged/);
  });

  it('other limits or a larger source boot a machine of their own, and leave the waiting one', async () => {
    await ready();
    const other = await build('echo hi', { limits: { ...limits, memory_bytes: limits.memory_bytes * 2 } });
    assert.ok(!other.waited);
    const workspace_dir = join(dir, 'large');
    await mkdir(workspace_dir);
    await writeFile(join(workspace_dir, 'large'), Buffer.alloc(9 * MIB, 1));
    const large = await build('wc -c large', { workspace_dir });
    assert.ok(!large.waited);
    assert.match(large.output, /^9437184 large$/m);
    assert.equal(driver.waiting(), 1);
  });

  it('one that dies while it waits is replaced', async () => {
    await ready();
    const [waiting] = (await readdir(options.work_dir)).filter((name) => name.startsWith('warm_'));
    process.kill(markedProcesses(waiting!)[0]!, 'SIGKILL');
    await until('its folder is gone', async () => !(await readdir(options.work_dir)).includes(waiting!));
    await ready();
    assert.ok((await build('true')).waited);
  });

  it('closing ends those that wait and those that boot', async () => {
    await ready();
    const { workspace_dir } = await build('true');
    await until('the next one boots', async () => (await readdir(options.work_dir)).length > 0);
    await driver.close!();
    assert.deepEqual(await readdir(options.work_dir), []);
    assert.equal(driver.waiting(), 0);
    assert.ok(!(await build('true', { workspace_dir })).waited);
    assert.deepEqual(await readdir(options.work_dir), []);
  });
});

/** What the contract does not ask of every driver: real packages through the policy's proxy, a capped cache, a hang. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { LIMITS, markedProcesses, until } from '../../contract/harness.ts';
import type { Machine, MachineExit, MachineSpec } from '../../driver.ts';
import { microvmDriver } from '../driver.ts';
import type { Hypervisor } from '../hypervisor.ts';
import { TEST_PARTS, testImage } from './contract.fixtures.ts';
import { qemuDriver } from './driver.ts';
import { qemuHypervisor } from './hypervisor.ts';

const MIB = 1024 * 1024;
const image = await testImage();
const dir = await mkdtemp(join(tmpdir(), 'kiln-qemu-'));
const options = {
  ...{ data_dir: join(dir, 'data'), work_dir: join(dir, 'data/machines'), host_env: process.env },
  ...{ ...TEST_PARTS, image },
};
await mkdir(options.work_dir, { recursive: true });
const driver = qemuDriver(options);
const tested = await driver.selfTest();
const skip = tested.ok ? false : `qemu does not work here: ${tested.reason}`;

let count = 0;
async function start(
  command: string,
  o: Partial<MachineSpec> = {},
  on = driver,
): Promise<{ machine: Machine; output: () => string }> {
  const id = `mch_${process.pid}x${count++}`;
  const workspace_dir = o.workspace_dir ?? join(dir, 'workspaces', id);
  await mkdir(workspace_dir, { recursive: true });
  let output = '';
  const machine = await on.start({
    ...{ id, kind: 'build', cwd: '.', env: {}, command },
    ...{ limits: { ...LIMITS, time_ms: 400_000, disk_bytes: 512 * MIB }, ...o, workspace_dir },
    on_output: (_, chunk) => {
      output += chunk.toString();
    },
  });
  return { machine, output: () => output };
}
async function run(
  command: string,
  o: Partial<MachineSpec> = {},
): Promise<{ exit: MachineExit; output: string }> {
  const { machine, output } = await start(command, o);
  return { exit: await machine.exited, output: output() };
}

describe('builds in QEMU', { skip }, () => {
  after(async () => {
    assert.deepEqual(await readdir(options.work_dir), []);
    await rm(dir, { recursive: true, force: true });
  });

  it('npm installs an app through the proxy; the second time from the cache', async () => {
    const workspace_dir = join(dir, 'app');
    const cache = { dir: join(dir, 'cache'), max_bytes: 256 * MIB };
    for (const path of [workspace_dir, cache.dir]) await mkdir(path);
    const manifest = { name: 'app', version: '1.0.0', dependencies: { express: '4' } };
    await writeFile(join(workspace_dir, 'package.json'), JSON.stringify(manifest));
    const script = 'npm_config_cache=$KILN_CACHE_DIR/npm npm install --no-audit --no-fund --prefer-offline';
    const first = await run(script, { workspace_dir, cache });
    assert.equal(first.exit.exit_code, 0, first.output);
    assert.ok((await readdir(join(workspace_dir, 'node_modules'))).length > 40);
    const registry = first.exit.hosts!.find(({ refused }) => refused === null)!;
    assert.ok(registry.bytes_in > 100_000, JSON.stringify(first.exit.hosts));
    assert.equal((await stat(join(cache.dir, 'cache.img'))).size, cache.max_bytes, 'the cap is the size');

    await rm(join(workspace_dir, 'node_modules'), { recursive: true });
    const second = await run(script, { workspace_dir, cache });
    assert.equal(second.exit.exit_code, 0, second.output);
    const again = second.exit.hosts!.reduce((sum, { bytes_in }) => sum + bytes_in, 0);
    assert.ok(again < registry.bytes_in / 2, `${again} of ${registry.bytes_in} bytes`);
  });

  it('a cache that was filled is emptied before the next build, which says so', async () => {
    const cache = { dir: join(dir, 'small'), max_bytes: 32 * MIB };
    await mkdir(cache.dir);
    const full = await run('head -c 64M /dev/zero > $KILN_CACHE_DIR/a', { cache });
    assert.equal(full.exit.reason, 'exited', JSON.stringify(full.exit));
    assert.match(full.output, /No space left/);
    const next = await run('ls $KILN_CACHE_DIR; echo done', { cache });
    assert.match(next.output, /the cache was nearly full and was emptied/);
    assert.match(next.output, /^done$/m);
  });

  it('notices a machine that hangs, and leaves nothing of it', async () => {
    const search_path = process.env.PATH ?? '';
    const hypervisor: Hypervisor = qemuHypervisor({ accelerator: 'tcg', search_path });
    const { machine } = await start('sleep 600', {}, microvmDriver('qemu', options, [hypervisor]));
    hypervisor.slowness = 0.2;
    process.kill(machine.pid, 'SIGSTOP');
    const exit = await machine.exited;
    assert.equal(exit.reason, 'machine_failed');
    assert.match(exit.detail!, /hangs: no sign of life for \d+ s/);
    await until('it is gone', () => markedProcesses(machine.id).length === 0);
  });
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import type { DriverName } from '../driver.ts';
import { type Bench, LIMITS, markedProcesses, newId, newMark, processesWith, until } from './harness.ts';

export function stopCases(bench: () => Bench): void {
  it('lets a machine end by itself on TERM', async () => {
    const { machine, stdout } = await bench().start(
      'trap "echo bye; exit 3" TERM; echo up; while :; do sleep 0.05; done',
    );
    await until('it is up', () => stdout() !== '');
    const exit = await machine.stop(20_000 * bench().patience);
    assert.deepEqual([exit.reason, exit.exit_code, stdout()], ['killed', 3, 'up\nbye\n']);
    assert.ok(exit.duration_ms < 15_000 * bench().patience, `${exit.duration_ms} ms`);
    assert.equal(await machine.stop(0), exit, 'stopping again gives the same');
  });

  it('gives children the grace as well when the shell around them dies at once', async () => {
    const app =
      "process.on('SIGTERM',()=>setTimeout(()=>{require('fs').writeFileSync('drained','');process.exit()},300));console.log('up');setInterval(()=>0,1000)";
    const started = await bench().start(`node -e "${app}" & wait`);
    await until('it is up', () => started.stdout() !== '');
    const exit = await started.machine.stop(20_000 * bench().patience);
    assert.equal(exit.reason, 'killed');
    assert.ok(existsSync(join(started.workspace_dir, 'drained')));
    assert.ok(exit.duration_ms < 15_000 * bench().patience, `${exit.duration_ms} ms`);
  });

  it('kills a tree that ignores TERM, daemons included, once the grace is over', async () => {
    const mark = newMark();
    const script = `trap "" TERM; (setsid sh -c 'sleep ${mark} & sleep ${mark}' &); sleep ${mark} & echo up; while :; do sleep 0.1; done`;
    const { machine, stdout } = await bench().start(script);
    const { own_kernel } = bench().driver.capabilities;
    const all = async () =>
      own_kernel ? (await machine.usage()).processes >= 5 : processesWith(`sleep\0${mark}`).length === 3;
    await until('it is up', async () => stdout() !== '' && (await all()));
    const started = performance.now();
    const exit = await machine.stop(400);
    const took_ms = performance.now() - started;
    assert.equal(exit.reason, 'killed');
    assert.ok(took_ms >= 390 && took_ms < 2000 * bench().patience, `${took_ms} ms`);
    assert.deepEqual(processesWith(mark), []);
  });

  it('a second stop with less grace hurries the first', async () => {
    const { machine, stdout } = await bench().start('trap "" TERM; echo up; while :; do sleep 0.1; done');
    await until('it is up', () => stdout() !== '');
    const first = machine.stop(60_000);
    assert.equal(await machine.stop(0), await first);
  });

  it('stopping what has ended gives its own exit', async () => {
    const { machine } = await bench().run('exit 6');
    const exit = await machine.stop(1000);
    assert.deepEqual([exit.reason, exit.exit_code], ['exited', 6]);
  });
}

/** An engine that starts two machines, says so, and is killed without warning. */
const ENGINE = `
const [url, factory, options, specs] = process.argv.slice(2);
const driver = await (await import(url))[factory](JSON.parse(options));
for (const spec of JSON.parse(specs)) await driver.start({ ...spec, on_output() {} });
console.log('started');
setInterval(() => {}, 1000);
`;

export function crashCases(bench: () => Bench, name: DriverName, module: string): void {
  /** What runs on this host of some machines: a command with its mark, or the VM around it. */
  const alive = (mark: string, ids: string[]) =>
    bench().driver.capabilities.own_kernel ? ids.flatMap(markedProcesses) : processesWith(mark);

  async function startAndKillEngine(ids: string[], mark: string, command: string): Promise<void> {
    const workspace_dir = await bench().newWorkspace();
    const specs = ids.map((id) => ({
      ...{ id, kind: 'instance', workspace_dir, cwd: '.', command, env: {} },
      limits: { ...LIMITS, time_ms: null },
    }));
    const args = [module, `${name}Driver`, JSON.stringify(bench().options), JSON.stringify(specs)];
    // As a file: worker threads of the engine would inherit what the command line says about a script in it.
    const file = join(bench().dir, 'engine.mjs');
    await writeFile(file, ENGINE);
    const engine = spawn(process.execPath, [file, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(engine.stdout, 'data');
    const { own_kernel } = bench().driver.capabilities;
    const wanted = own_kernel ? ids.length : 3 * ids.length;
    await until('the machines are up', () => alive(`sleep\0${mark}`, ids).length >= wanted);
    engine.kill('SIGKILL');
    await once(engine, 'exit');
  }

  it('dies with the engine, even on kill -9', async (t: TestContext) => {
    if (!bench().driver.capabilities.dies_with_engine)
      return t.skip(`${name} does not claim dies_with_engine: only sweep() finds what a crash leaves`);
    const mark = newMark();
    const id = newId();
    await startAndKillEngine([id], mark, `(setsid sleep ${mark} &); sleep ${mark} & sleep ${mark}`);
    await until('nothing is left', () => alive(mark, [id]).length === 0);
    await bench().driver.sweep(new Set());
  });

  it('sweeps what a killed engine left, and only that', async () => {
    const mark = newMark();
    const own = await bench().start(`sleep ${mark}1`);
    const ids = [newId(), newId()];
    // Daemons without the mark in their environment, whose parents are gone after the crash.
    await startAndKillEngine(ids, mark, `(setsid sh -c 'sleep ${mark} & sleep ${mark}' &); sleep ${mark}`);
    const swept = await bench().driver.sweep(new Set([ids[1]!]));
    assert.ok(!swept.includes(ids[1]!) && !swept.includes(own.machine.id), `${swept}`);
    if (!bench().driver.capabilities.dies_with_engine) {
      assert.deepEqual(swept, [ids[0]]);
      assert.ok(alive(mark, [ids[1]!]).length > 0, 'the kept one lives');
    }
    assert.deepEqual((await readdir(bench().options.work_dir)).sort(), [ids[1], own.machine.id].sort());
    await bench().driver.sweep(new Set());
    assert.equal(alive(mark, ids).length, alive(`${mark}1`, []).length);
    assert.ok((await own.machine.usage()).processes > 0, 'the machine of this engine lives');
    await own.machine.stop(0);
    assert.deepEqual(await bench().driver.sweep(new Set()), []);
  });
}

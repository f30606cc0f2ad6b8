import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import type { Bench } from './harness.ts';
import { ENGINE_SECRET, newMark, openBench, processesWith, until } from './harness.ts';

/** What every driver adds to the environment; the shell adds PWD and its like. */
const ADDED =
  /^(PATH|HOME|TMPDIR|LANG|PWD|OLDPWD|SHLVL|_|KILN_MACHINE|KILN_DATA|PIP_[A-Z_]+|GO[A-Z]+|(YARN_)?(HTTPS?|NO)_PROXY|(npm_config_)?(https?_|no_?)?proxy|NODE_USE_ENV_PROXY|NODE_OPTIONS|JAVA_TOOL_OPTIONS)$/;

export function basicCases(bench: () => Bench): void {
  it('reports exit codes and signals', async () => {
    for (const code of [0, 1, 7, 42]) {
      const { exit } = await bench().run(`exit ${code}`);
      assert.deepEqual([exit.reason, exit.exit_code, exit.signal], ['exited', code, null]);
    }
    for (const name of ['KILL', 'TERM', 'SEGV']) {
      const { exit } = await bench().run(`kill -${name} $$`);
      assert.deepEqual([exit.reason, exit.exit_code, exit.signal], ['exited', null, `SIG${name}`]);
    }
  });

  it('delivers all output in order before it is over', async () => {
    const lines = 40_000;
    const { stdout, stderr, exit } = await bench().run(
      `i=0; while [ $i -lt ${lines} ]; do echo "line $i"; i=$((i+1)); done; printf end >&2; printf 'no newline'`,
    );
    const expected = Array.from({ length: lines }, (_, n) => `line ${n}\n`).join('');
    assert.ok(stdout() === `${expected}no newline`, 'stdout is whole and in order');
    assert.equal(stderr(), 'end');
    assert.equal(exit.exit_code, 0);
  });

  it('gives real pipes: /dev/stdout and /dev/stderr can be opened', async () => {
    const { stdout, stderr } = await bench().run(
      'echo out > /dev/stdout; echo err | tee /dev/stderr > /dev/null',
    );
    assert.equal(stdout(), 'out\n');
    assert.equal(stderr(), 'err\n');
  });

  it('has an empty stdin and none of the files of its launcher', async () => {
    const { stdout } = await bench().run('cat; readlink /proc/$$/fd/*');
    assert.deepEqual(
      stdout()
        .trim()
        .split('\n')
        .filter((target) => !/\/std(out|err) \(deleted\)$|^pipe:\[\d+\]$/.test(target)),
      Array(stdout().split('/dev/null').length - 1).fill('/dev/null'),
    );
  });

  it('passes exactly the environment it was given, and nothing of the engine', async () => {
    const env = { PORT: '3000', EMPTY: '', TRICKY: 'a\nb "$HOME" ü' };
    const { stdout } = await bench().run('env -0', { env });
    const seen = new Map(
      stdout()
        .split('\0')
        .filter((entry) => entry !== '')
        .map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
    );
    for (const [name, value] of Object.entries(env)) assert.equal(seen.get(name), value, name);
    assert.deepEqual(
      [...seen.keys()].filter((name) => !(name in env) && !ADDED.test(name)),
      [],
    );
    assert.ok(![...seen.values()].some((value) => value.includes(ENGINE_SECRET)));
  });

  it('strips credentials from registry settings, and gives instances none of these settings', async () => {
    const script = 'echo "$PIP_INDEX_URL"; cat "$HOME/.npmrc"';
    const build = await bench().run(script);
    assert.equal(build.stdout().split('\n')[0], 'https://pypi.example/simple');
    assert.match(build.stdout(), /registry=https:\/\/npm\.example\//);
    assert.doesNotMatch(build.stdout(), /_authToken|email|u:p/);
    const instance = await bench().run(script, { kind: 'instance' });
    assert.equal(instance.stdout(), '\n');
  });

  it('starts in the given folder and writes to the workspace, HOME and /tmp', async () => {
    const workspace_dir = await bench().newWorkspace();
    await mkdir(join(workspace_dir, 'app'));
    const script = 'set -e; echo hi > made; echo 1 > "$TMPDIR/x"; echo 1 > "$HOME/x"; pwd';
    const { exit, stdout } = await bench().run(script, { workspace_dir, cwd: 'app' });
    assert.equal(exit.exit_code, 0);
    const root = bench().driver.capabilities.fixed_workspace_path ? '/workspace' : workspace_dir;
    assert.equal(stdout().trim(), `${root}/app`);
    assert.equal(await readFile(join(workspace_dir, 'app/made'), 'utf8'), 'hi\n');
  });

  it('removes the private folder of a machine', async () => {
    await bench().run('mkdir -p "$HOME/ro/sub" && touch "$HOME/ro/sub/x" && chmod -R a-w "$HOME/ro"');
    assert.deepEqual(await readdir(bench().options.work_dir), []);
  });

  it('refuses what it cannot start safely', async () => {
    const refused = (o: Parameters<Bench['start']>[1], message: RegExp) =>
      assert.rejects(bench().start('true', o), message);
    await refused({ cwd: '../..' }, /outside the workspace/);
    await refused({ cwd: '/etc' }, /outside the workspace/);
    await refused({ cwd: 'missing' }, /not in/);
    await refused({ id: '../evil' }, /plain name/);
    await refused({ env: { A: 'x\0--bind\0/\0/host' } }, /cannot be passed/);
    await refused({ env: { 'A=B': 'x' } }, /cannot be passed/);
    await refused({ workspace_dir: join(bench().dir, 'nowhere') }, /not in/);
    assert.deepEqual(await readdir(bench().options.work_dir), []);
  });

  it('ends with the main command: daemons that hold its output die with it', async () => {
    const mark = newMark();
    const script = `(setsid sh -c 'setsid sleep ${mark} & sleep ${mark}' &) ; (setsid env -i /bin/sh -c 'sleep ${mark}' > /dev/null 2>&1 &); sleep 0.3; echo main over`;
    const { exit, stdout } = await bench().run(script);
    assert.equal(stdout(), 'main over\n');
    assert.equal(exit.exit_code, 0);
    assert.ok(exit.duration_ms < 5000 * bench().patience);
    assert.deepEqual(processesWith(mark), []);
  });

  it('names the ports that its own processes listen on', async () => {
    const server = (address: string) =>
      `require('http').createServer((q,s)=>s.end('hi')).listen(0,'${address}',function(){console.log(this.address().port)})`;
    const o = { kind: 'instance' } as const;
    const other = await bench().start(`node -e "${server('127.0.0.1')}"`, o);
    const { machine, stdout } = await bench().start(
      `node -e "${server('127.0.0.1')};${server('0.0.0.0')};${server('::1')}" & wait`,
      o,
    );
    await until('the servers listen', () => stdout().split('\n').length === 4 && other.stdout() !== '');
    const listening = await machine.listening();
    const [a, b, c] = stdout().trim().split('\n').map(Number);
    const expected = [a, b, c].sort((x, y) => x! - y!);
    assert.deepEqual(
      listening.map((one) => one.port),
      expected,
    );
    assert.deepEqual(listening.map((one) => one.address).sort(), ['0.0.0.0', '127.0.0.1', '::1']);
    const local = listening.find((one) => one.address === '127.0.0.1')!;
    // A machine with a network of its own has a loopback of its own.
    if (!bench().driver.capabilities.own_kernel && !bench().driver.base_image)
      assert.equal(await (await fetch(`http://127.0.0.1:${local.port}`)).text(), 'hi');
    await Promise.all([machine.stop(0), other.machine.stop(0)]);
    assert.deepEqual(await machine.listening(), []);
  });

  it('measures memory and processes, and remembers the peaks', async () => {
    const script = 'const b=Buffer.alloc(100e6,1);console.log(b.length);setInterval(()=>b[0],1000)';
    const { machine, stdout } = await bench().start(`sleep 50 & node -e "${script}" & wait`);
    await until('it has allocated', () => stdout() !== '');
    const usage = await machine.usage();
    assert.ok(usage.memory_bytes > 100e6 && usage.memory_bytes < 400e6, `${usage.memory_bytes}`);
    // In a container the relay to the proxy is one of the machine's own, and is there at the start.
    const { base_image, capabilities } = bench().driver;
    const relays = base_image && !capabilities.own_kernel ? 1 : 0;
    const fits = (seen: number) => assert.ok(seen >= 3 && seen <= 3 + relays, `${seen} processes`);
    fits(usage.processes);
    await machine.stop(0);
    const exit = await machine.exited;
    assert.ok(exit.peak_memory_bytes >= 100e6);
    fits(exit.peak_processes);
  });

  it('gives builds a cache that outlives them, and nobody else', async () => {
    const dir = join(bench().dir, 'cache');
    await mkdir(dir, { recursive: true });
    const cache = { dir, max_bytes: 1e9 };
    const script =
      'echo "cache:$KILN_CACHE_DIR"; cat "$KILN_CACHE_DIR/made"; [ -z "$KILN_CACHE_DIR" ] || echo kept > "$KILN_CACHE_DIR/made"';
    await bench().run(script, { cache });
    const second = await bench().run(script, { cache });
    const seen = bench().driver.capabilities.fixed_workspace_path ? '/cache' : dir;
    assert.equal(second.stdout(), `cache:${seen}\nkept\n`);
    for (const kind of ['exec', 'instance'] as const)
      assert.equal((await bench().run(script, { cache, kind })).stdout().split('\n')[0], 'cache:');
    assert.equal((await bench().run(script)).stdout().split('\n')[0], 'cache:');
  });

  it('reports processor time and the growth of its disk', async () => {
    const busy = 'while(process.cpuUsage().user<600e3);';
    const { exit } = await bench().run(`head -c 5M /dev/urandom > a; node -e "${busy}"; sleep 0.4`);
    assert.ok(exit.cpu_ms! > 300 && exit.cpu_ms! < 30_000, `${exit.cpu_ms} ms`);
    assert.ok(exit.disk_bytes! >= 5e6 && exit.disk_bytes! < 50e6, `${exit.disk_bytes} bytes`);
  });

  it('describes its base in stable text', async () => {
    const base = await bench().driver.base();
    assert.match(base, /^linux-\w+;.*node-\d+.*;workspace-(fixed|moving)$/);
    assert.equal(base, await bench().driver.base());
    const again = await openBench(() => bench().driver);
    assert.equal(await again.driver.base(), base);
    await again.close();
  });
}

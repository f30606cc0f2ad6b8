import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import type { Capabilities } from '../driver.ts';
import { type Bench, ENGINE_SECRET } from './harness.ts';

const BAIT = 'bait-91c2';

/**
 * Attempts to reach the host from inside a machine. Each runs for drivers that claim the capability; a script
 * prints ESCAPED when it gets through.
 */
export function escapeCases(bench: () => Bench): void {
  function attempt(
    title: string,
    claim: keyof Capabilities,
    script: (host: { bait: string; pid: number }) => string | Promise<string>,
  ): void {
    it(`cannot ${title}`, async (t: TestContext) => {
      const { driver, options } = bench();
      if (!driver.capabilities[claim]) return t.skip(`${driver.name} does not claim ${claim}`);
      const bait = join(options.data_dir, 'bait');
      await writeFile(bait, BAIT);
      const { stdout, stderr } = await bench().run(await script({ bait, pid: process.pid }));
      assert.doesNotMatch(stdout(), /ESCAPED/, stderr());
      assert.ok(!(stdout() + stderr()).includes(BAIT), stdout());
      assert.ok(!(stdout() + stderr()).includes(ENGINE_SECRET), stdout());
      assert.match(stdout(), /tried/, `the script itself failed: ${stderr()}`);
    });
  }

  attempt(
    'read the data folder',
    'hides_host_files',
    ({ bait }) => `cat ${bait}; ls ${bait} && echo ESCAPED; echo tried`,
  );

  attempt('see another sandbox', 'hides_host_files', async () => {
    const other = await bench().newWorkspace();
    await writeFile(join(other, 'code'), BAIT);
    return `cat ${other}/code ../*/code /workspace/../*/code; [ -e ${other} ] && echo ESCAPED; echo tried`;
  });

  attempt('follow a link out of the workspace', 'hides_host_files', async ({ bait }) => {
    return `ln -s ${bait} link; ln -s /proc/1/root/${bait} link2; cat link link2; echo tried`;
  });

  attempt('read accounts, keys and home folders', 'hides_host_files', () =>
    // What else is in the root of an image is the image's, not the host's.
    [
      '/etc/shadow',
      '/etc/ssl/private',
      '/root/.ssh',
      '/root/.npmrc',
      '/root/.bashrc',
      ...(bench().driver.capabilities.own_kernel ? [] : ['/etc/ssh', '/var/lib', '/opt']),
    ]
      .map((path) => `[ ! -r ${path} ] || [ -z "$(ls -A ${path})" ] || echo "ESCAPED ${path}"`)
      .concat('echo tried')
      .join('\n'),
  );

  attempt('reach a socket of the host', 'hides_host_files', async () => {
    const path = join(bench().dir, 'engine.sock');
    const server = createServer((socket) => socket.end('ESCAPED'))
      .listen(path)
      .unref();
    await once(server, 'listening');
    const connect = `require('net').connect('${path}').on('data',d=>console.log(String(d))).on('error',()=>0)`;
    return `node -e "${connect}"; (ls -A /run/; ls -A /var/run/) | grep -q . && echo ESCAPED; echo tried`;
  });

  attempt('write to the system', 'hides_host_files', () =>
    ['/', '/usr', '/usr/bin', '/etc', '/dev', '/workspace/..', '$(dirname $(command -v node))']
      .map((path) => `touch ${path}/kiln-escape && rm ${path}/kiln-escape && echo "ESCAPED ${path}"`)
      .concat('echo tried')
      .join('\n'),
  );

  // Writes back the value it reads, so that even an escape changes nothing.
  attempt('change kernel settings', 'hides_host_processes', () =>
    [
      'for file in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sys/net/ipv4/ip_forward; do',
      '  value=$(cat $file) && [ -n "$value" ] && (printf %s "$value" > $file) && echo "ESCAPED $file"',
      'done',
      '[ -w /proc/sysrq-trigger ] && echo ESCAPED sysrq',
      'mkdir -p $HOME/m; mount -t proc proc $HOME/m && echo ESCAPED mount',
      'unshare -Urm true && echo ESCAPED unshare',
      'echo tried',
    ].join('\n'),
  );

  attempt('see the engine', 'hides_host_processes', ({ pid }) =>
    [
      `[ -e /proc/${pid}/stat ] && echo ESCAPED`,
      'cat /proc/[0-9]*/environ | tr "\\0" "\\n" | grep -E "VAULT|SECRET"',
      'echo tried',
    ].join('\n'),
  );

  it('cannot signal a process of the host', async (t: TestContext) => {
    const { driver, run } = bench();
    if (!driver.capabilities.hides_host_processes)
      return t.skip(`${driver.name} does not claim hides_host_processes`);
    const victim = spawn('sleep', ['60']);
    try {
      const { stdout } = await run(
        `kill -0 ${victim.pid} && echo ESCAPED; kill -9 ${victim.pid} -${victim.pid}`,
      );
      assert.equal(stdout(), '');
      assert.equal(victim.exitCode ?? victim.signalCode, null);
    } finally {
      victim.kill('SIGKILL');
    }
  });

  attempt('make or open devices', 'hides_host_files', () =>
    [
      'mknod /tmp/disk b 8 0 && echo ESCAPED mknod',
      'mknod /tmp/mem c 1 1 && echo ESCAPED mem',
      'for device in /dev/vda /dev/sda /dev/nvme0n1 /dev/mem /dev/kmsg /dev/kvm /dev/fuse /dev/net/tun; do',
      '  [ -e $device ] && echo "ESCAPED $device"',
      'done',
      'dmesg > /dev/null && echo ESCAPED dmesg',
      'echo tried',
    ].join('\n'),
  );

  attempt('gain privileges', 'hides_host_files', () =>
    [
      'cp /bin/sh /tmp/suid && chmod 4755 /tmp/suid',
      'grep -q "^CapEff:[[:space:]]*0*$" /proc/self/status || echo ESCAPED capabilities',
      'grep -q "^NoNewPrivs:[[:space:]]*1" /proc/self/status || echo ESCAPED privileges',
      'chroot / true && echo ESCAPED chroot',
      'chown 0:12345 /tmp/suid && echo ESCAPED chown',
      'echo tried',
    ].join('\n'),
  );

  it('does not show its environment in the process list', async (t: TestContext) => {
    const { driver, start } = bench();
    if (!driver.capabilities.hides_host_processes)
      return t.skip(`${driver.name} does not claim hides_host_processes`);
    const { machine } = await start('sleep 30', { env: { APP_SECRET: BAIT } });
    for (const file of ['cmdline', 'environ'])
      assert.ok(!readFileSync(`/proc/${machine.pid}/${file}`, 'utf8').includes(BAIT), file);
    await machine.stop(0);
  });

  it('does not take a workspace for something else', async (t: TestContext) => {
    const { driver, run, newWorkspace } = bench();
    if (!driver.capabilities.fixed_workspace_path)
      return t.skip(`${driver.name} does not claim fixed_workspace_path`);
    const workspace_dir = await newWorkspace();
    await symlink('/', join(workspace_dir, 'root'));
    await mkdir(join(workspace_dir, 'plain'));
    const { stdout } = await run(`cat ./${bench().options.data_dir}/bait; pwd -P`, {
      workspace_dir,
      cwd: 'root',
    });
    assert.ok(!stdout().includes(BAIT));
    assert.equal(stdout().trim(), '/');
  });
}

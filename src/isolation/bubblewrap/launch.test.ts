import assert from 'node:assert/strict';
import { mkdir, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { MachineSpec } from '../driver.ts';
import { bubblewrapLaunch, bubblewrapOptions } from './launch.ts';
import { hostMounts, procEntries } from './mounts.ts';

const spec = { id: 'mch_1', kind: 'build', command: 'npm ci' } as MachineSpec;

function options(env: Record<string, string>): string[] {
  return bubblewrapOptions({
    user_namespace: 'sealed',
    mounts: [
      { kind: 'read', from: '/usr', to: '/usr' },
      { kind: 'hide', to: '/usr/data' },
    ],
    proc_entries: ['/proc/sys'],
    workspace_dir: '/data/ws',
    private_dir: '/data/machines/mch_1',
    cwd: '/workspace/app',
    own_network: true,
    env,
  });
}

describe('bubblewrap launch', () => {
  it('keeps the environment of the app out of the process list and out of bubblewrap itself', () => {
    const launch = bubblewrapLaunch({
      bwrap: '/usr/bin/bwrap',
      spec,
      options: options({ LD_PRELOAD: '/workspace/evil.so', TOKEN: 'top-secret' }),
      marks: { KILN_MACHINE: 'mch_1' },
      limit_arguments: ['/usr/bin/prlimit', '--core=0', '--'],
      outlet: null,
    });
    assert.deepEqual(launch.env, { PATH: '/usr/bin:/bin', KILN_MACHINE: 'mch_1' });
    assert.doesNotMatch([launch.file, ...launch.args].join(' '), /top-secret|evil/);
    assert.match(launch.input!, /\0--clearenv\0--setenv\0LD_PRELOAD\0\/workspace\/evil\.so\0/);
    assert.equal(launch.args.at(-1), 'npm ci');
  });

  it('makes kernel settings read-only after mounting /proc, and the root at the very end', () => {
    const list = options({}).join(' ');
    assert.match(list, /--proc \/proc --ro-bind \/proc\/sys \/proc\/sys/);
    assert.match(list, /--cap-drop ALL/);
    assert.match(list, /--ro-bind \/usr \/usr --tmpfs \/usr\/data --remount-ro \/usr\/data/);
    assert.match(list, /--bind \/data\/ws \/workspace --chdir \/workspace\/app --remount-ro \/ --clearenv$/);
    assert.ok(procEntries().includes('/proc/sys') && !procEntries().some((path) => /\d$/.test(path)));
  });

  it('shows toolchains and named paths, never a folder that holds the data folder', async () => {
    const dir = await realpath(await mkdtemp(join(tmpdir(), 'kiln-mounts-')));
    const data_dir = join(dir, 'state/data');
    for (const path of ['tool/bin', 'tool/lib', 'state/data', 'certs'])
      await mkdir(join(dir, path), { recursive: true });
    const tool = {
      name: 'go',
      path: '',
      real_path: join(dir, 'tool/bin'),
      prefix_dir: join(dir, 'tool'),
      version: '',
    };
    const mounts = hostMounts({
      tools: [tool, { ...tool, prefix_dir: join(dir, 'state') }],
      extra: [join(dir, 'certs'), join(dir, 'missing'), dir, '/etc/ssl/certs/ca-certificates.crt'],
      generated: { '/etc/passwd': '/data/passwd' },
      data_dir,
    });
    await rm(dir, { recursive: true });
    const read = mounts.filter((mount) => mount.kind === 'read').map((mount) => mount.to);
    assert.deepEqual(
      read.filter((path) => path.startsWith(dir)),
      [join(dir, 'tool'), join(dir, 'certs')],
    );
    assert.ok(read.includes('/usr') && read.includes('/etc/passwd'));
    for (const path of ['/etc', '/etc/shadow', '/etc/ssl', '/root', '/run', '/var', '/opt', '/home', '/'])
      assert.ok(!read.includes(path), path);
    const inside = hostMounts({ tools: [], extra: [], generated: {}, data_dir: '/usr/local/kiln' });
    assert.deepEqual(inside.at(-1), { kind: 'hide', to: '/usr/local/kiln' });
  });
});

import assert from 'node:assert/strict';
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cgroupDirs, cgroupSettings, readCgroupLayout, removeCgroups } from './cgroup.ts';
import { prepareFolder, prepareJail } from './jail.ts';
import { firecrackerId, type JailerOptions, jailerArguments, jailRoot } from './jailer.ts';

const MIB = 1024 * 1024;
const OPTIONS: JailerOptions = {
  jailer: '/usr/local/bin/jailer',
  exec_file: '/usr/local/bin/firecracker',
  id: 'mch-7',
  uid: 61_000,
  gid: 61_000,
  chroot_base_dir: '/data/machines/mch_7/jail',
  cgroup: {
    version: 2,
    parent: 'kiln',
    settings: cgroupSettings(2, { memory_bytes: 640 * MIB, tasks: 64, vcpus: 2 }),
  },
  netns: null,
  file_bytes: 8 * 1024 * MIB,
  open_files: 4096,
  arguments: ['--api-sock', '/api.sock', '--log-path', '/vmm.log'],
};

describe("the jailer's command line", () => {
  it('holds user, folder, control group and limits, and ends with what is for Firecracker', () => {
    assert.deepEqual(jailerArguments(OPTIONS), [
      ...['/usr/local/bin/jailer', '--id', 'mch-7', '--exec-file', '/usr/local/bin/firecracker'],
      ...['--uid', '61000', '--gid', '61000', '--chroot-base-dir', '/data/machines/mch_7/jail'],
      ...['--cgroup-version', '2', '--parent-cgroup', 'kiln', '--cgroup', 'memory.max=671088640'],
      ...['--cgroup', 'pids.max=64', '--cgroup', 'cpu.max=200000 100000'],
      ...['--resource-limit', 'fsize=8589934592', '--resource-limit', 'no-file=4096'],
      ...['--', '--api-sock', '/api.sock', '--log-path', '/vmm.log'],
    ]);
    assert.equal(jailRoot(OPTIONS), '/data/machines/mch_7/jail/firecracker/mch-7/root');
  });

  it('a network namespace, cgroups of version 1, or none', () => {
    const version_1 = {
      ...{ version: 1 as const, parent: 'kiln/vms' },
      settings: cgroupSettings(1, { memory_bytes: MIB, tasks: 1, vcpus: 1 }),
    };
    const text = jailerArguments({ ...OPTIONS, netns: '/run/netns/empty', cgroup: version_1 }).join(' ');
    assert.match(text, /--netns \/run\/netns\/empty --cgroup-version 1 --parent-cgroup kiln\/vms/);
    assert.match(text, /--cgroup memory.limit_in_bytes=1048576 --cgroup pids.max=1/);
    assert.match(text, /--cgroup cpu.cfs_period_us=100000 --cgroup cpu.cfs_quota_us=100000/);
    assert.doesNotMatch(jailerArguments({ ...OPTIONS, cgroup: null }).join(' '), /cgroup/);
  });

  it('what the jailer would refuse or misread is an error before it', () => {
    const wrong: [Partial<JailerOptions>, RegExp][] = [
      [{ id: 'mch_7' }, /no id/],
      [{ id: '' }, /no id/],
      [{ id: '../up' }, /no id/],
      [{ id: 'x'.repeat(65) }, /no id/],
      [{ exec_file: '/usr/bin/qemu' }, /only programs named firecracker/],
      [{ exec_file: '/usr/bin/firecracker;x' }, /only programs named firecracker/],
      [{ exec_file: 'firecracker' }, /absolute/],
      [{ chroot_base_dir: 'jail' }, /absolute/],
      [{ netns: 'empty' }, /absolute/],
      [{ uid: 0 }, /unprivileged/],
      [{ gid: 1.5 }, /unprivileged/],
      [{ file_bytes: Number.POSITIVE_INFINITY }, /no limit/],
      [{ open_files: 0 }, /no limit/],
      [{ cgroup: { version: 2, parent: '../x', settings: [] } }, /control group/],
      [{ cgroup: { version: 2, parent: '/x', settings: [] } }, /control group/],
      [{ cgroup: { version: 2, parent: 'x', settings: ['memory.max=1=2'] } }, /control group setting/],
      [{ cgroup: { version: 2, parent: 'x', settings: ['../../x=1'] } }, /control group setting/],
    ];
    for (const [change, words] of wrong)
      assert.throws(() => jailerArguments({ ...OPTIONS, ...change }), words, JSON.stringify(change));
  });

  it('ids of machines become ids of Firecracker', () => {
    assert.equal(firecrackerId('mch_01jx'), 'mch-01jx');
    for (const id of ['', 'a b', 'a/b', 'ü', 'x'.repeat(65)]) assert.throws(() => firecrackerId(id), /no id/);
  });
});

describe('control groups', () => {
  const V2 = 'proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n';
  const V1 = ['memory', 'pids', 'cpu,cpuacct']
    .map((name) => `cgroup /sys/fs/cgroup/${name} cgroup rw,relatime,${name} 0 0\n`)
    .join('');

  it('are found in both versions; a host between the two has version 1', () => {
    assert.deepEqual(cgroupDirs(readCgroupLayout(V2)!, 'kiln', 'mch-7'), ['/sys/fs/cgroup/kiln/mch-7']);
    const hybrid = readCgroupLayout(`${V1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n`)!;
    assert.equal(hybrid.version, 1);
    assert.deepEqual(cgroupDirs(hybrid, 'kiln', 'mch-7'), [
      '/sys/fs/cgroup/memory/kiln/mch-7',
      '/sys/fs/cgroup/pids/kiln/mch-7',
      '/sys/fs/cgroup/cpu,cpuacct/kiln/mch-7',
    ]);
    assert.equal(readCgroupLayout('proc /proc proc rw 0 0\n'), null);
    const half = 'cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /u cgroup2 rw 0 0\n';
    assert.equal(readCgroupLayout(half), null);
  });

  it('are removed; those that are not there are no error', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'kiln-cgroup-'));
    await removeCgroups([dir, dir, join(dir, 'absent')]);
    await assert.rejects(stat(dir), /ENOENT/);
  });
});

describe('a jail', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kiln-jail-'));
  });
  after(() => rm(dir, { recursive: true, force: true }));
  const user = { uid: process.getuid!(), gid: process.getgid!() };

  it('holds shared files as they are, the writable ones as the same file, and a log', async () => {
    const [kernel, output] = [join(dir, 'vmlinux'), join(dir, 'output.img')];
    await writeFile(kernel, 'kernel', { mode: 0o644 });
    await writeFile(output, '', { mode: 0o644 });
    await symlink(kernel, join(dir, 'current'));
    const root = join(dir, 'jail/firecracker/a/root');
    await prepareJail({
      ...{ root, user, log_name: 'vmm.log' },
      files: [
        { name: 'kernel', path: join(dir, 'current'), read_only: true },
        { name: 'output', path: output, read_only: false },
      ],
    });
    assert.deepEqual((await readdir(root)).sort(), ['kernel', 'output', 'vmm.log']);
    assert.equal((await stat(join(root, 'kernel'))).ino, (await stat(kernel)).ino);
    await writeFile(join(root, 'output'), 'written by the guest');
    assert.equal(await readFile(output, 'utf8'), 'written by the guest');
    assert.equal((await stat(output)).mode & 0o777, 0o600);
    assert.equal((await stat(root)).mode & 0o777, 0o700);
    await rm(join(dir, 'jail'), { recursive: true });
    assert.equal(await readFile(kernel, 'utf8'), 'kernel');
  });

  it('a shared file that not everybody may read is copied, its owner stays', async (t) => {
    if (user.uid !== 0) return t.skip('only root can give files away');
    const secret = join(dir, 'initramfs');
    await writeFile(secret, 'private', { mode: 0o600 });
    const root = join(dir, 'jail/firecracker/b/root');
    const other = { uid: 61_000, gid: 61_001 };
    await prepareJail({
      ...{ root, user: other, log_name: 'vmm.log' },
      files: [{ name: 'initramfs', path: secret, read_only: true }],
    });
    const copy = await stat(join(root, 'initramfs'));
    assert.notEqual(copy.ino, (await stat(secret)).ino);
    assert.deepEqual([copy.uid, copy.gid, copy.mode & 0o777], [61_000, 61_001, 0o400]);
    assert.deepEqual([(await stat(secret)).uid, (await stat(secret)).mode & 0o777], [0, 0o600]);
    assert.equal((await stat(root)).uid, 61_000);
    assert.equal((await stat(join(root, 'vmm.log'))).uid, 61_000);
  });

  it('is made once; folders and devices are no drives', async () => {
    const root = join(dir, 'jail/firecracker/c/root');
    await mkdir(root, { recursive: true });
    const empty = { root, user, log_name: 'vmm.log', files: [] };
    await assert.rejects(prepareJail(empty), /exists already/);
    for (const [at, path] of [dir, '/dev/null'].entries())
      await assert.rejects(
        prepareJail({
          ...empty,
          root: join(dir, `jail/firecracker/d${at}/root`),
          files: [{ name: 'x', path, read_only: false }],
        }),
        /no regular file/,
      );
  });

  it('without a jailer the same names lie in the folder of the VM', async () => {
    const root = join(dir, 'mch');
    await mkdir(root);
    await writeFile(join(dir, 'scratch'), 'scratch');
    await prepareFolder({
      ...{ root, user: null, log_name: 'vmm.log' },
      files: [{ name: 'drive-scratch', path: join(dir, 'scratch'), read_only: false }],
    });
    assert.equal(await readFile(join(root, 'drive-scratch'), 'utf8'), 'scratch');

    // A user of its own cannot follow links into the data folder.
    const own = join(dir, 'mch2');
    await mkdir(own);
    await prepareFolder({
      ...{ root: own, user, log_name: 'vmm.log' },
      files: [{ name: 'drive-scratch', path: join(dir, 'scratch'), read_only: false }],
    });
    assert.ok((await lstat(join(own, 'drive-scratch'))).isFile());
  });
});

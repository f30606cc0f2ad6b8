import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { arch } from 'node:process';
import { describe, it } from 'node:test';
import { tempDir } from '../../../test/support/folders.ts';
import { parseCgroup } from './cgroup.ts';
import { imageEnvironment, instanceCapabilities, startScript } from './container.ts';
import { socketPath } from './engine.ts';
import { freeSubnet } from './network.ts';
import { splitTime } from './output.ts';
import { PROBE_ANSWER, probeProgram } from './probe-image.ts';

describe('docker, what needs no daemon', () => {
  it('takes Unix sockets only', () => {
    assert.equal(socketPath(), '/var/run/docker.sock');
    assert.equal(socketPath('unix:///run/user/1/docker.sock'), '/run/user/1/docker.sock');
    assert.throws(() => socketPath('tcp://10.0.0.1:2375'), /over a Unix socket/);
  });

  it('finds the first subnet that overlaps no other', () => {
    assert.equal(freeSubnet('10.213.0.0/16', []), '10.213.0.0/28');
    assert.equal(
      freeSubnet('10.213.0.0/16', ['10.213.0.0/28', '172.17.0.0/16', '', 'fd00::/64']),
      '10.213.0.16/28',
    );
    assert.equal(freeSubnet('10.213.0.0/16', ['10.213.0.0/24']), '10.213.1.0/28');
    assert.equal(freeSubnet('10.213.0.0/28', ['10.0.0.0/8']), null);
    assert.throws(() => freeSubnet('10.213.0.0', []), /no IPv4 range/);
  });

  it('reads control groups of both versions, and takes nobody’s for a container', () => {
    assert.deepEqual(parseCgroup('4:memory:/docker/a\n2:cpu,cpuacct:/docker/a\n1:pids:/\n'), {
      ...{ memory: '/docker/a', cpu: '/docker/a', cpuacct: '/docker/a' },
    });
    assert.deepEqual(parseCgroup('0::/system.slice/docker-a.scope\n'), {
      '': '/system.slice/docker-a.scope',
    });
  });

  it('gives capabilities to an image’s root only', () => {
    for (const user of [undefined, '', 'root', '0', '0:0'])
      assert.ok(instanceCapabilities(user).includes('SETUID'));
    for (const user of ['1000', 'node', 'node:node']) assert.deepEqual(instanceCapabilities(user), []);
  });

  it('starts with exactly the environment, whatever is in it', async () => {
    const dir = await tempDir('docker-start');
    const env = { PATH: '/usr/bin:/bin', ODD: `a'b"$(id)\n\`x\``, UID: '7' };
    await writeFile(path.join(dir, 'start'), startScript({ cwd: dir, env, command: 'env -0', before: [] }));
    const seen = execFileSync('sh', [path.join(dir, 'start')], { encoding: 'utf8' }).split('\0');
    for (const [name, value] of Object.entries(env)) assert.ok(seen.includes(`${name}=${value}`), name);
    assert.ok(!seen.some((entry) => entry.startsWith('HOME=')));
    await rm(dir, { recursive: true });
  });

  it('reads frames of a log and environments of images', () => {
    const { time, text } = splitTime(Buffer.from('2026-11-25T19:15:41.788599950Z a b'));
    assert.deepEqual([time, text.toString()], ['2026-11-25T19:15:41.788599950Z', 'a b']);
    assert.equal(splitTime(Buffer.from('plain text')).time, null);
    assert.deepEqual(imageEnvironment(['A=1=2', 'B=', '=x']), { A: '1=2', B: '' });
  });

  it('makes a program that runs without anything', async () => {
    const dir = await tempDir('docker-probe');
    await writeFile(path.join(dir, 'works'), probeProgram(arch)!, { mode: 0o755 });
    assert.equal(execFileSync(path.join(dir, 'works'), { encoding: 'utf8' }), PROBE_ANSWER);
    assert.equal(probeProgram('mips'), null);
    await rm(dir, { recursive: true });
  });
});

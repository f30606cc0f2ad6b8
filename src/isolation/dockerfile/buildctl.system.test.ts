import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { baseImage, dockerMissing, installed, pushImage, startDocker } from '../../../test/support/docker.ts';
import { tempDir } from '../../../test/support/folders.ts';
import { type BuildBench, imageBuildCases } from '../../../test/support/image-builds.ts';
import { startRegistry } from '../../../test/support/registry.ts';
import { buildctlImageBuilder } from './buildctl.ts';

/** No Debian package has them: a folder may be named, and they are looked for on the PATH. */
const BIN = process.env.KILN_TEST_BUILDKIT_BIN ?? '';
const program = (name: string) =>
  [BIN, ...(process.env.PATH ?? '').split(':')]
    .map((dir) => path.join(dir, name))
    .find((file) => existsSync(file));

function missing(): string | false {
  const buildkitd = program('buildkitd');
  if (!buildkitd || !program('buildctl') || !installed('runc'))
    return 'no buildkitd, buildctl and runc (put them on the PATH, or name their folder in KILN_TEST_BUILDKIT_BIN)';
  return dockerMissing() ?? false;
}

describe('Dockerfile builds by buildctl', { skip: missing() }, () => {
  let bench: BuildBench;
  const closing: (() => Promise<void>)[] = [];
  before(async () => {
    const dir = await tempDir('image-buildctl');
    closing.push(() => rm(dir, { recursive: true, force: true }));
    const registry = await startRegistry();
    closing.unshift(registry.stop);
    const base = `${registry.host}/base:1`;
    // Docker is only there to push the base image.
    const docker = await startDocker();
    await pushImage(docker.socket, await baseImage(), base).finally(() => docker.stop());
    const socket = path.join(dir, 'buildkitd.sock');
    const log = openSync(path.join(dir, 'log'), 'a');
    const args = [
      '--root',
      path.join(dir, 'root'),
      '--addr',
      `unix://${socket}`,
      '--oci-worker-snapshotter=overlayfs',
    ];
    const daemon = spawn(program('buildkitd')!, [...args, '--containerd-worker=false'], {
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    closing.unshift(async () => {
      daemon.kill();
      if (daemon.exitCode === null) await once(daemon, 'exit');
    });
    for (let tries = 0; !existsSync(socket); tries++) {
      if (tries > 200 || daemon.exitCode !== null)
        throw new Error(`buildkitd did not start: ${execFileSync('tail', ['-n5', path.join(dir, 'log')])}`);
      await sleep(50);
    }
    const work_dir = path.join(dir, 'work');
    await mkdir(work_dir);
    const builder = buildctlImageBuilder({
      addr: `unix://${socket}`,
      work_dir,
      buildctl: program('buildctl'),
    });
    bench = { builder, dir, work_dir, base };
  });
  after(async () => {
    for (const close of closing) await close();
  });
  imageBuildCases(() => bench);
});

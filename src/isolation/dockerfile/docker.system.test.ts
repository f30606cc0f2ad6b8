import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { baseImage, dockerMissing, pushImage, startDocker } from '../../../test/support/docker.ts';
import { tempDir } from '../../../test/support/folders.ts';
import { type BuildBench, buildImage, imageBuildCases } from '../../../test/support/image-builds.ts';
import { startRegistry } from '../../../test/support/registry.ts';
import { openDocker } from '../docker/engine.ts';
import { dockerImageBuilder } from './docker.ts';

describe('Dockerfile builds by Docker', { skip: dockerMissing() ?? false }, () => {
  let bench: BuildBench;
  let socket: string;
  const closing: (() => Promise<void>)[] = [];
  after(async () => {
    for (const close of closing) await close();
  });
  before(async () => {
    const docker = await startDocker();
    const registry = await startRegistry();
    const dir = await tempDir('image-docker');
    closing.push(docker.stop, registry.stop, () => rm(dir, { recursive: true, force: true }));
    socket = docker.socket;
    const base = `${registry.host}/base:1`;
    await pushImage(socket, await baseImage(), base);
    await mkdir(path.join(dir, 'work'));
    const work_dir = path.join(dir, 'work');
    bench = { builder: dockerImageBuilder({ data_dir: dir, work_dir, socket }), dir, work_dir, base };
  });
  imageBuildCases(() => bench);

  it('removes the image it built from the daemon', async () => {
    const names = (await openDocker(socket).client().listImages()).flatMap((one) => one.RepoTags ?? []);
    assert.deepEqual(
      names.filter((name) => name.includes('-build')),
      [],
    );
  });

  it('does not pretend to hold a list of registries', async () => {
    const network = { mode: 'registries' as const, allow: ['registry.npmjs.org'] };
    await assert.rejects(buildImage(bench, 'FROM scratch\n', { network }), /Build in a microVM/);
  });

  it('says what is missing', async () => {
    const none = dockerImageBuilder({
      data_dir: bench.dir,
      work_dir: bench.work_dir,
      socket: '/nowhere.sock',
    });
    const test = await none.selfTest();
    assert.ok(!test.ok && /no Docker daemon/.test(test.reason), JSON.stringify(test));
  });
});

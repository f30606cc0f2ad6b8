import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KilnError } from '../domain/errors.ts';
import { type Candidates, chooseIsolation } from './choose.ts';
import type { IsolationDriver, SelfTest } from './driver.ts';
import type { ImageBuilder } from './image-builder.ts';
import type { ImageRuntime } from './runtime.ts';

const WORKS: SelfTest = { ok: true, detail: 'fine' };
const SLOW: SelfTest = { ok: true, detail: 'slow', emulated: true };
const FAILS: SelfTest = { ok: false, reason: 'namespaces are refused', install: 'Allow them.' };

const made = <T>(tests: Record<string, SelfTest>): T[] =>
  Object.entries(tests).map(([name, test]) => ({ name, selfTest: async () => test }) as T);

function candidates(of: {
  host: Record<string, SelfTest>;
  builders?: Record<string, SelfTest>;
  runtimes?: Record<string, SelfTest>;
  image_builders?: Record<string, SelfTest>;
}): Candidates {
  return {
    host: made<IsolationDriver>(of.host),
    builders: made<IsolationDriver>(of.builders ?? {}),
    runtimes: made<ImageRuntime>(of.runtimes ?? {}),
    image_builders: made<ImageBuilder>(of.image_builders ?? {}),
  };
}

const AUTO = { builds: 'auto', instances: 'auto' } as const;
const HOST = { bubblewrap: WORKS, process: WORKS };

describe('chooseIsolation', () => {
  it('auto takes the strongest that works, and explains the others', async () => {
    const both = await chooseIsolation(AUTO, candidates({ host: HOST }));
    assert.deepEqual([both.driver.name, both.builder.name, both.runtime], ['bubblewrap', 'bubblewrap', null]);
    const { driver, explain } = await chooseIsolation(
      AUTO,
      candidates({ host: { bubblewrap: FAILS, process: WORKS } }),
    );
    assert.equal(driver.name, 'process');
    assert.equal((await both.explain()).map((one) => one.name).join(), 'bubblewrap,process');
    const host = { job: 'host' as const };
    assert.deepEqual(await explain(), [
      {
        ...host,
        name: 'bubblewrap',
        ok: false,
        in_use: false,
        detail: 'namespaces are refused',
        install: 'Allow them.',
      },
      { ...host, name: 'process', ok: true, in_use: true, detail: 'fine', install: null },
    ]);
  });

  it('docker without Docker and without a base image: both are said', async () => {
    const from = candidates({ host: HOST, runtimes: { docker: FAILS } });
    await assert.rejects(chooseIsolation({ ...AUTO, builds: 'docker' }, from), (error: KilnError) => {
      assert.match(
        error.message,
        /docker: namespaces are refused\. Allow them\..*base image.*builder-image build/,
      );
      return true;
    });
  });

  it('a named one is taken, or refused with what to do', async () => {
    const { driver, explain } = await chooseIsolation(
      { ...AUTO, builds: 'process' },
      candidates({ host: HOST }),
    );
    assert.deepEqual([driver.name, (await explain()).length], ['process', 1]);
    const failing = candidates({ host: { bubblewrap: FAILS, process: FAILS } });
    await assert.rejects(chooseIsolation({ ...AUTO, builds: 'bubblewrap' }, failing), (error) => {
      assert.ok(error instanceof KilnError && error.code === 'UNSUPPORTED');
      assert.match(error.message, /namespaces are refused\. Allow them\./);
      return true;
    });
    await assert.rejects(chooseIsolation(AUTO, failing), /isolation `auto`/);
    const no_docker = candidates({ host: HOST, builders: { docker: FAILS }, runtimes: { docker: FAILS } });
    await assert.rejects(chooseIsolation({ ...AUTO, builds: 'docker' }, no_docker), /isolation `docker`/);
    await assert.rejects(chooseIsolation({ ...AUTO, instances: 'docker' }, no_docker), /isolation `docker`/);
  });

  it('tries no weaker host driver before somebody asks', async () => {
    const tried: string[] = [];
    const watched = candidates({ host: HOST }).host.map((one) => ({
      ...one,
      selfTest: () => {
        tried.push(one.name);
        return one.selfTest();
      },
    }));
    const { explain } = await chooseIsolation(AUTO, { ...candidates({ host: HOST }), host: watched });
    assert.deepEqual(tried, ['bubblewrap']);
    assert.deepEqual(
      (await explain()).map(({ name, ok, in_use }) => [name, ok, in_use]),
      [
        ['bubblewrap', true, true],
        ['process', true, false],
      ],
    );
    assert.deepEqual(tried, ['bubblewrap', 'process']);
  });

  it('builds go to a virtual machine on hardware before the host, to an emulated one only when it is named', async () => {
    const fast = candidates({ host: HOST, builders: { firecracker: FAILS, qemu: WORKS, docker: WORKS } });
    const slow = candidates({
      host: HOST,
      builders: { qemu: SLOW, docker: FAILS },
      runtimes: { qemu: SLOW },
    });
    assert.equal((await chooseIsolation(AUTO, fast)).builder.name, 'qemu');
    const auto = await chooseIsolation(AUTO, slow);
    assert.deepEqual(
      [auto.driver.name, auto.builder.name, auto.runtime?.name],
      ['bubblewrap', 'bubblewrap', 'qemu'],
    );
    const named = await chooseIsolation({ ...AUTO, builds: 'qemu' }, slow);
    assert.deepEqual([named.driver.name, named.builder.name], ['bubblewrap', 'qemu']);
  });

  it('Dockerfiles are built where all other builds are, or by the buildkitd that was named', async () => {
    const of = { host: HOST, builders: { qemu: SLOW }, image_builders: { qemu: SLOW, docker: WORKS } };
    const name = async (wanted: Parameters<typeof chooseIsolation>[0], from = candidates(of)) =>
      (await chooseIsolation(wanted, from)).image_builder?.name;
    assert.equal(await name(AUTO), 'docker');
    assert.equal(await name({ ...AUTO, builds: 'qemu' }), 'qemu');
    const image_builders = { buildctl: WORKS, ...of.image_builders };
    assert.equal(await name({ ...AUTO, builds: 'qemu' }, candidates({ ...of, image_builders })), 'buildctl');
  });

  it('says why nothing runs images', async () => {
    const none = candidates({ host: HOST, runtimes: { docker: FAILS }, image_builders: { docker: FAILS } });
    const { runtime, image_builder, images_missing } = await chooseIsolation(AUTO, none);
    assert.deepEqual([runtime, image_builder], [null, null]);
    assert.equal(images_missing, 'docker: namespaces are refused. Allow them.');
    const base = { ok: false as const, reason: 'no builder image', install: 'kiln builder-image build' };
    const bare = candidates({ host: HOST, runtimes: { qemu: base, docker: FAILS } });
    assert.equal(
      (await chooseIsolation(AUTO, bare)).images_missing,
      'qemu: no builder image. Run `kiln builder-image build`. docker: namespaces are refused. Allow them.',
    );
    const off = await chooseIsolation({ ...AUTO, instances: 'host' }, none);
    assert.match(off.images_missing, /--instance-isolation host/);
  });
});

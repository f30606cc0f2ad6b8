/** QEMU machines for tests: on a small builder image that is made once per host and kept in the temporary folder. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ImageConfig, ImageRunConfig } from '../../../domain/image.ts';
import { extractTar } from '../../../source/extract.ts';
import { packTree } from '../../../source/pack.ts';
import type { DriverOptions, IsolationDriver } from '../../driver.ts';
import type { MachineImage } from '../../image.ts';
import type { ImageRuntime, InstanceSpec } from '../../runtime.ts';
import { buildBuilderImage } from '../builder-image/build.ts';
import { type BuilderImage, listBuilderImages } from '../builder-image/image.ts';
import { makeRecipe, recipeDigest } from '../builder-image/recipe.ts';
import type { MicrovmDriver } from '../driver.ts';
import type { MicrovmOptions } from '../options.ts';
import { qemuDriver as makeDriver } from './driver.ts';
import { qemuRuntime } from './runtime.ts';

const IMAGES = join(tmpdir(), 'kiln-test-builder-images');

/** With what the tests build and run in it. Takes three minutes the first time. */
export async function testImage(): Promise<BuilderImage> {
  const toolchains = ['node', 'python', 'git', 'docker'] as const;
  const wanted = recipeDigest(makeRecipe({ toolchains }));
  const known = (await listBuilderImages(IMAGES)).find((image) => recipeDigest(image.recipe) === wanted);
  const log = (line: string) => console.error(`builder image for tests: ${line}`);
  return known ?? (await buildBuilderImage({ dir: IMAGES, toolchains, host_env: process.env, log }));
}

export const TEST_PARTS = { pack: packTree, unpack: extractTar, allow_emulation: true, vcpus: 1 } as const;

/** The name and shape that the contract's engine process expects. */
export async function qemuDriver(o: DriverOptions): Promise<IsolationDriver> {
  return makeDriver({ ...o, ...TEST_PARTS, image: await testImage() } satisfies MicrovmOptions);
}

/** The builder image as the image of an instance: only its root file system is looked at. */
export function builderAsImage(builder: BuilderImage, config: ImageRunConfig): MachineImage {
  const never = () => {
    throw new Error('only the squashfs is needed');
  };
  return {
    digest: `sha256:${builder.digest}`,
    manifest: null as never,
    config: { architecture: 'amd64', os: 'linux', config, rootfs: { type: 'layers', diff_ids: [] } },
    ...{ blob: never, dockerArchive: never },
    squashfs: async () => [builder.rootfs_squashfs],
  };
}

/** Instances beside the driver's machines. */
export function makeInstances(o: MicrovmOptions, driver: MicrovmDriver): ImageRuntime {
  return qemuRuntime({ ...o, work_dir: join(o.data_dir, 'instances') }, driver);
}

/** An engine of its own that starts one instance of the test image and prints its output. */
export async function startInstance(
  o: DriverOptions,
  spec: Omit<InstanceSpec, 'image' | 'on_output'> & { config: ImageConfig },
): Promise<void> {
  const image = await testImage();
  const options = { ...o, ...TEST_PARTS, image };
  const root = { ...spec, config: spec.config, squashfs: async () => [image.rootfs_squashfs] };
  await makeInstances(options, makeDriver(options)).start({
    ...spec,
    image: root as unknown as MachineImage,
    on_output: (_, chunk) => process.stdout.write(chunk),
  });
}

/** Which drivers this install could use, made from its configuration; isolation/choose.ts decides which it does. */
import path from 'node:path';
import type { Config } from './config.ts';
import type { Log } from './engine/context.ts';
import type { Folders } from './engine/folders.ts';
import { openAnswers } from './isolation/answers.ts';
import { bubblewrapDriver } from './isolation/bubblewrap/driver.ts';
import { type Candidates, chooseIsolation, type Isolation } from './isolation/choose.ts';
import { dockerDriver } from './isolation/docker/driver.ts';
import { dockerRuntime } from './isolation/docker/runtime.ts';
import { buildctlImageBuilder } from './isolation/dockerfile/buildctl.ts';
import { dockerImageBuilder } from './isolation/dockerfile/docker.ts';
import { microvmImageBuilder } from './isolation/dockerfile/microvm.ts';
import type { DriverOptions, ToolOffer } from './isolation/driver.ts';
import type { ImageBuilder } from './isolation/image-builder.ts';
import { type BuilderImage, findBuilderImage } from './isolation/microvm/builder-image/image.ts';
import { cacheDriveBytes } from './isolation/microvm/drives.ts';
import { firecrackerDriver } from './isolation/microvm/firecracker/driver.ts';
import type { MicrovmOptions } from './isolation/microvm/options.ts';
import { EGRESS_ADDRESS } from './isolation/microvm/qemu/arguments.ts';
import { qemuDriver } from './isolation/microvm/qemu/driver.ts';
import { microvmRuntime } from './isolation/microvm/runtime.ts';
import type { WarmShape } from './isolation/microvm/warm-vm.ts';
import { processDriver } from './isolation/process/driver.ts';
import { TOOL_NAMES } from './isolation/toolchain.ts';
import { extractTar } from './source/extract.ts';
import { packTree } from './source/pack.ts';

interface Around {
  folders: Folders;
  host_env: Record<string, string>;
  say: Log;
}

export interface Machines extends Isolation {
  /** As `IsolationDriver.base`, of `driver` and of `builder`. */
  base: string;
  builder_base: string;
}

export async function openMachines(config: Config, o: Around): Promise<Machines> {
  const answers = openAnswers(path.join(o.folders.answers, 'programs.json'));
  const options: DriverOptions = {
    data_dir: o.folders.data,
    work_dir: o.folders.machines,
    host_env: o.host_env,
    answers,
  };
  const candidates: Candidates = {
    host: [bubblewrapDriver(options), processDriver(options)],
    ...(await imageCandidates(config, o, options)),
  };
  const wanted = { builds: config.isolation, instances: config.instance_isolation };
  // Asked while test machines run; the answers are the same for whichever is chosen.
  for (const driver of candidates.host) driver.base().catch(() => undefined);
  const chosen = await chooseIsolation(wanted, candidates);
  const [base, builder_base] = await Promise.all([chosen.driver.base(), chosen.builder.base()]);
  await answers.keep();
  return { ...chosen, base, builder_base };
}

/** Loaded only where there is one: what images are made of is needed later, or never. */
async function openBase(images: Config['images'], o: Around, builder: BuilderImage | null) {
  const { openBaseImage } = await import('./base-image.ts');
  return openBaseImage({
    dir: o.folders.base_images,
    images_dir: o.folders.images,
    wanted: images.base_image,
    builder,
    host_env: o.host_env,
    say: o.say,
  });
}

/** The default versions are in PATH; the other lines of Node have folders of their own. */
function toolsOf({ tools, recipe }: BuilderImage): ToolOffer {
  const others = Object.entries(recipe.node?.versions ?? {}).map(([major, version]) => ({
    ...{ name: 'node', version, bin_dir: `/opt/node/${major}/bin` },
  }));
  const offered = [
    ...tools,
    ...others.filter(({ version }) => !tools.some((one) => one.version === version)),
  ];
  return { offered, looked_for: TOOL_NAMES };
}

/** First, because somebody named it. */
function buildctl({ buildkit_host, buildkit_tls }: Config['images'], work_dir: string): ImageBuilder[] {
  if (buildkit_host === null) return [];
  const file = (name: string) => path.join(buildkit_tls ?? '', name);
  const tls = { ca_file: file('ca.pem'), cert_file: file('cert.pem'), key_file: file('key.pem') };
  return [buildctlImageBuilder({ addr: buildkit_host, work_dir, ...(buildkit_tls ? { tls } : {}) })];
}

/** A larger source than this boots a machine of its own. */
const WARM_INPUT_BYTES = 512 * 1024 * 1024;

function shapeOfBuilds({ limits, cache }: Config): WarmShape {
  const { memory_bytes, disk_bytes } = limits.build;
  const cache_bytes = cacheDriveBytes(cache.deployment_bytes);
  return { memory_bytes, disk_bytes, input_bytes: WARM_INPUT_BYTES, cache_bytes };
}

type ImageCandidates = Omit<Candidates, 'host'>;

/** None of them is even asked when only the host's own drivers are wanted: their self-tests boot machines. */
async function imageCandidates(config: Config, o: Around, options: DriverOptions): Promise<ImageCandidates> {
  const host_only =
    ['bubblewrap', 'process'].includes(config.isolation) && config.instance_isolation === 'host';
  if (host_only) return { builders: [], runtimes: [], image_builders: [] };
  const { images } = config;
  const builder = await findBuilderImage(o.folders.builder_images);
  const base_image = images.base_image === null && !builder ? null : await openBase(images, o, builder);
  const microvm: MicrovmOptions = {
    ...options,
    image: builder,
    base_image,
    pack: packTree,
    unpack: extractTar,
    allow_emulation: images.allow_emulation,
    vcpus: images.build_cpus,
    warm: { size: images.warm_builders, shape: shapeOfBuilds(config) },
  };
  const qemu = qemuDriver(microvm);
  const has_docker = builder?.recipe.toolchains.includes('docker') ?? false;
  const docker = { ...options, ...(images.docker_host ? { socket: images.docker_host } : {}) };
  // Of another base nobody knows what is in it.
  const tools = images.base_image === null && builder ? toolsOf(builder) : null;
  const builders = [
    firecrackerDriver(microvm),
    qemu,
    ...(base_image ? [dockerDriver({ ...docker, base_image })] : []),
  ];
  return {
    builders: builders.map((driver) => (tools ? { ...driver, tools: async () => tools } : driver)),
    runtimes: [
      // Each sweeps its own folder.
      microvmRuntime('qemu', { ...microvm, work_dir: o.folders.instance_machines }, qemu),
      dockerRuntime(docker),
    ],
    image_builders: [
      ...buildctl(images, options.work_dir),
      microvmImageBuilder({ driver: qemu, proxy_url: `http://${EGRESS_ADDRESS}`, has_docker }),
      dockerImageBuilder(docker),
    ],
  };
}

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { buildBuilderImage } from '../../isolation/microvm/builder-image/build.ts';
import { type BuilderImage, listBuilderImages } from '../../isolation/microvm/builder-image/image.ts';
import {
  parseToolchains,
  TOOLCHAINS,
  type ToolchainName,
} from '../../isolation/microvm/builder-image/recipe.ts';
import { type Bind, examples } from '../cli.ts';
import { CliError, EXIT, interrupted } from '../exit.ts';
import { formatAge, formatBytes } from '../output.ts';

interface BuildFlags {
  toolchains?: ToolchainName[];
  snapshot?: string;
}

/** Inside the data folder; images are named by digest, so an engine that runs may go on using an older one. */
const FOLDER = 'builder-images';

export function define(command: Command, bind: Bind): void {
  command.description('The image that microVM and Docker builds start from. Needs no engine.');
  examples(command, [
    ['kiln builder-image build', 'with every toolchain; a few minutes, as root'],
    ['kiln builder-image ls', 'which there are; the first is in use'],
  ]);
  defineBuild(command, bind);
  defineLs(command, bind);
}

function defineBuild(parent: Command, bind: Bind): void {
  const command = parent.command('build');
  command.description('Make kernel, initramfs and root file system from Debian packages and npm.');
  command
    .option('--toolchains <names>', `comma-separated, of ${TOOLCHAINS.join(', ')} (default all)`, toolchains)
    .option('--snapshot <time>', 'a state of snapshot.debian.org, as 20260101T000000Z', snapshot);
  examples(command, [
    ['kiln builder-image build', 'all toolchains, from the mirrors of this machine'],
    ['kiln builder-image build --toolchains node,git', 'a small one'],
    ['kiln builder-image build --snapshot 20260101T000000Z', 'the same packages on any day'],
  ]);
  command.action(
    bind(async (cli, flags: BuildFlags) => {
      const began = Date.now();
      const image = await buildBuilderImage({
        dir: join(cli.data_dir, FOLDER),
        ...(flags.toolchains ? { toolchains: flags.toolchains } : {}),
        snapshot: flags.snapshot ?? null,
        host_env: cli.env,
        log: (line) => cli.out.note(line),
        signal: cli.interrupted,
      }).catch((error: Error) => {
        if (cli.interrupted.aborted) throw interrupted();
        throw new CliError(EXIT.engine, 'BUILDER_IMAGE_FAILED', error.message, { cause: error });
      });
      cli.out.result(await view(image), () => {
        cli.out.line(
          `${image.digest.slice(0, 12)} is ready after ${Math.round((Date.now() - began) / 1000)} s.`,
        );
        cli.out.note(
          `It is in ${image.dir}; packages.txt lists what is in it. Engines use it from their next start.`,
        );
      });
      return EXIT.ok;
    }),
  );
}

function defineLs(parent: Command, bind: Bind): void {
  const command = parent.command('ls').description('The images of a data folder, newest first.');
  examples(command, [['kiln builder-image ls --json', 'as data']]);
  command.action(
    bind(async (cli) => {
      const images = await Promise.all((await listBuilderImages(join(cli.data_dir, FOLDER))).map(view));
      cli.out.result({ data: images }, () => {
        if (images.length === 0) cli.out.line('No builder image yet: kiln builder-image build');
        cli.out.table(
          ['DIGEST', 'MADE', 'ROOT', 'KERNEL', 'TOOLS'],
          images.map((one) => [
            one.digest.slice(0, 12),
            formatAge(one.made_at, Date.now()),
            formatBytes(one.size_bytes),
            one.kernel_release,
            one.tools.map(({ name, version }) => `${name} ${version}`).join(', '),
          ]),
        );
      });
      return EXIT.ok;
    }),
  );
}

async function view(image: BuilderImage) {
  const { digest, dir, made_at, kernel_release, tools, libc, recipe } = image;
  const { size } = await stat(image.rootfs_squashfs);
  return {
    digest,
    dir,
    made_at,
    size_bytes: size,
    kernel_release,
    libc,
    tools,
    toolchains: recipe.toolchains,
  };
}

function toolchains(text: string): ToolchainName[] {
  try {
    return parseToolchains(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

function snapshot(text: string): string {
  if (/^\d{8}T\d{6}Z$/.test(text)) return text;
  throw new InvalidArgumentError('It must look like 20260101T000000Z.');
}

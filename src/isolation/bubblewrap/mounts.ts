import { globSync, lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { isInside } from '../scratch.ts';
import { isSystem, type Toolchain } from '../toolchain.ts';

/** One thing of the host that a machine sees: a read-only bind, a link, or an empty folder in place of something. */
export type Mount =
  | { kind: 'read'; from: string; to: string }
  | { kind: 'link'; from: string; to: string }
  | { kind: 'hide'; to: string };

/**
 * The parts of /etc that programs need to resolve names, check certificates and find libraries. No password
 * hashes, no private keys (so never /etc/ssl or /etc/pki as a whole), no configuration of the host's services.
 */
const ETC = [
  ...['/etc/hosts', '/etc/host.conf', '/etc/resolv.conf', '/etc/services', '/etc/protocols', '/etc/gai.conf'],
  ...['/etc/ssl/certs', '/etc/ssl/openssl.cnf', '/etc/ssl/cert.pem', '/etc/ca-certificates.conf'],
  ...[
    '/etc/pki/ca-trust/extracted',
    '/etc/pki/tls/certs',
    '/etc/pki/tls/cert.pem',
    '/etc/pki/tls/openssl.cnf',
  ],
  ...[
    '/etc/crypto-policies',
    '/etc/alternatives',
    '/etc/ld.so.cache',
    '/etc/ld.so.conf',
    '/etc/ld.so.conf.d',
  ],
  ...['/etc/localtime', '/etc/timezone', '/etc/mime.types', '/etc/mailcap', '/etc/os-release'],
  ...[
    '/etc/ld-musl-x86_64.path',
    '/etc/ld-musl-aarch64.path',
    '/etc/java',
    '/etc/maven',
    '/etc/dotnet',
    '/etc/perl',
    '/etc/fonts',
    '/etc/xml',
    '/etc/terminfo',
  ],
];

/**
 * Settings of languages that carry a version in their name: Debian's Java ends at once without the files that its
 * conf folder links to, and its PHP has no extensions without its .ini files. Named one by one where passwords may
 * lie beside them: of management only the .properties (not jmxremote.password), of PHP not fpm (the environment of pools).
 */
const ETC_PATTERNS = [
  '/etc/java-*-openjdk/{security,jfr}',
  '/etc/java-*-openjdk/*.{cfg,properties,properties.*}',
  '/etc/java-*-openjdk/management/*.properties',
  '/etc/php/*/{cli,mods-available}',
  '/etc/{php.ini,php.d}',
  '/etc/php[0-9]*/{php.ini,conf.d}',
  '/etc/python3*',
  '/etc/ImageMagick-*',
];

/** Top folders that are links into /usr on most systems, and folders of their own on others. */
const TOP = ['/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32'];

/**
 * What every machine of a driver sees of the host. `generated` are files the driver wrote for it (passwd, group,
 * nsswitch.conf): name to host path. `extra` are single paths that settings name (certificates, wheel folders).
 */
export function hostMounts(o: {
  tools: readonly Toolchain[];
  extra: readonly string[];
  generated: Record<string, string>;
  data_dir: string;
}): Mount[] {
  const mounts: Mount[] = [{ kind: 'read', from: '/usr', to: '/usr' }];
  for (const path of TOP) {
    const info = lstatSync(path, { throwIfNoEntry: false });
    if (info?.isSymbolicLink()) mounts.push({ kind: 'link', from: readlinkSync(path), to: path });
    else if (info?.isDirectory()) mounts.push({ kind: 'read', from: path, to: path });
  }
  // resolv.conf is often a link into /run, which a machine does not see: bind what it points to.
  const etc = [...ETC, ...globSync(ETC_PATTERNS).sort()];
  for (const path of etc) if (exists(path)) mounts.push({ kind: 'read', from: realpathSync(path), to: path });
  for (const [path, from] of Object.entries(o.generated)) mounts.push({ kind: 'read', from, to: path });

  const wanted = [...o.tools.flatMap((tool) => [tool.prefix_dir, tool.real_path]), ...o.extra];
  const seen: string[] = [];
  for (const path of [...new Set(wanted)].sort((a, b) => a.length - b.length)) {
    const covered = isSystem(path) || [...seen, ...etc].some((parent) => isInside(parent, path));
    if (covered || !exists(path) || isInside(path, o.data_dir)) continue;
    seen.push(path);
    mounts.push({ kind: 'read', from: realpathSync(path), to: path });
  }
  if (mounts.some((mount) => mount.kind === 'read' && isInside(mount.from, o.data_dir)))
    mounts.push({ kind: 'hide', to: o.data_dir });
  return mounts;
}

/** Entries of /proc besides the process folders and links into them: folders, and files that can be written. */
export function procEntries(): string[] {
  return readdirSync('/proc')
    .filter((name) => !/^\d+$/.test(name))
    .map((name) => `/proc/${name}`)
    .filter((path) => {
      const info = lstatSync(path, { throwIfNoEntry: false });
      return info?.isDirectory() || (info?.isFile() && (info.mode & 0o222) !== 0);
    });
}

function exists(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}

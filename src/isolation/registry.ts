import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import type { DriverOptions, MachineSpec } from './driver.ts';
import type { HomeFile } from './scratch.ts';
import { ASKED_ANEW, goFiles, isExecutable, isSame, searchEntries } from './toolchain.ts';

/**
 * The host's settings that a machine needs to reach package registries: which certificates to trust, which
 * registry and proxy to use. Nothing else of the host's environment or configuration reaches a machine.
 * Instances get the certificates only. Credentials are cut out unless the operator asks for them.
 */
export interface RegistrySettings {
  env: Record<string, string>;
  files: HomeFile[];
  /** Host files and folders that the settings name; a driver that hides the host shows these read-only. */
  paths: string[];
}

const CERTIFICATES = [
  'NODE_EXTRA_CA_CERTS',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'REQUESTS_CA_BUNDLE',
  'PIP_CERT',
  'CURL_CA_BUNDLE',
  'GIT_SSL_CAINFO',
  'CARGO_HTTP_CAINFO',
];
const REGISTRIES = [
  ...['npm_config_registry', 'npm_config_cafile', 'npm_config_strict_ssl', 'YARN_NPM_REGISTRY_SERVER'],
  ...['PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL', 'PIP_FIND_LINKS', 'PIP_NO_INDEX', 'PIP_TRUSTED_HOST'],
  ...['UV_INDEX_URL', 'UV_EXTRA_INDEX_URL', 'UV_DEFAULT_INDEX', 'UV_INDEX', 'UV_FIND_LINKS'],
  ...['GOPROXY', 'GOSUMDB', 'GOFLAGS', 'GONOPROXY', 'GONOSUMDB', 'GOPRIVATE', 'GOTOOLCHAIN'],
  ...['HEX_MIRROR', 'HEX_CACERTS_PATH'],
  ...['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'ALL_PROXY'],
];
/** Settings besides certificates that name files or folders. */
const PATHS = [
  ...['npm_config_cafile', 'npm_package_config_node_gyp_nodedir', 'HEX_CACERTS_PATH'],
  ...['PIP_FIND_LINKS', 'UV_FIND_LINKS'],
];
const GO_SETTINGS = ['GOPROXY', 'GOSUMDB', 'GOFLAGS', 'GONOPROXY', 'GONOSUMDB', 'GOPRIVATE', 'GOTOOLCHAIN'];
const NPM_KEYS =
  /^(@[\w.-]+:registry|registry|cafile|ca|strict-ssl|proxy|https-proxy|noproxy|fetch-[a-z-]+)$/;
const NPM_CREDENTIALS = /^\/\/[^\s]+:(_authToken|_auth|username|_password|certfile|keyfile)$/;
const PIP_KEYS = /^(index-url|extra-index-url|find-links|no-index|trusted-host|cert|proxy|timeout|retries)$/;

/** Reads the settings once per driver; see `forKind` for what a given machine gets of them. */
export async function readRegistrySettings(o: DriverOptions): Promise<RegistrySettings> {
  const keep = o.pass_registry_credentials === true;
  const env: Record<string, string> = {};
  for (const name of [...CERTIFICATES, ...REGISTRIES]) {
    const value = o.host_env[name];
    if (value) env[name] = keep ? value : withoutCredentials(value);
  }
  for (const [name, value] of Object.entries(await goSettings(o)))
    env[name] ??= keep ? value : withoutCredentials(value);

  const home = o.host_env.HOME ?? homedir();
  const npm = await readLines(['/etc/npmrc', '/usr/etc/npmrc', join(home, '.npmrc')]);
  const headers = npmNodedir(npm);
  // In an .npmrc npm would warn about it in every build log; node-gyp reads this name as well.
  if (headers !== null) env.npm_package_config_node_gyp_nodedir ??= headers;
  const pip = await readLines([
    '/etc/pip.conf',
    join(home, '.pip/pip.conf'),
    join(home, '.config/pip/pip.conf'),
  ]);
  const files = [
    { path: '.npmrc', text: npmConfig(npm, keep) },
    { path: '.config/pip/pip.conf', text: pipConfig(pip, keep) },
  ].filter((file) => file.text !== '');
  return { env, files, paths: namedPaths(env, files) };
}

/** Builds and execs get everything, instances the certificates. */
export function forKind(settings: RegistrySettings, kind: MachineSpec['kind']): RegistrySettings {
  if (kind !== 'instance') return settings;
  const env = Object.fromEntries(
    Object.entries(settings.env).filter(([name]) => CERTIFICATES.includes(name)),
  );
  return { env, files: [], paths: namedPaths(env, []) };
}

/** Folders of packages, which a machine can only use where they are brought into it. */
export const LINK_FOLDERS = ['PIP_FIND_LINKS', 'UV_FIND_LINKS'];

/**
 * For a machine whose root is an image: without what describes the host's own system (headers of its Node, its folder of
 * certificates), and without the variables named. Shown there, `nodedir=/usr` would put the host's /usr over the image's.
 */
export function forImage(settings: RegistrySettings, without: readonly string[] = []): RegistrySettings {
  const left_out = ['npm_package_config_node_gyp_nodedir', 'SSL_CERT_DIR', ...without];
  const env = Object.fromEntries(Object.entries(settings.env).filter(([name]) => !left_out.includes(name)));
  return { ...settings, env, paths: namedPaths(env, settings.files) };
}

/** `https://user:password@host/` → `https://host/`, for every URL in the text. */
export function withoutCredentials(text: string): string {
  return text.replace(/([a-z][a-z0-9+.-]*:\/\/)[^/\s,|]*@/gi, '$1');
}

/** The lines of npm config files that say where and how to reach registries. */
export function npmConfig(lines: readonly string[], keep_credentials: boolean): string {
  const kept: string[] = [];
  for (const line of lines) {
    const at = line.indexOf('=');
    const key = line.slice(0, at).trim();
    if (at < 0) continue;
    if (NPM_KEYS.test(key)) kept.push(keep_credentials ? line : withoutCredentials(line));
    else if (keep_credentials && NPM_CREDENTIALS.test(key)) kept.push(line);
  }
  return [...new Set(kept)].map((line) => `${line}\n`).join('');
}

/** Where npm config files say that the headers of Node are, for packages with native code; the last one wins. */
export function npmNodedir(lines: readonly string[]): string | null {
  const found = lines.map((line) => /^\s*nodedir\s*=\s*(\/.*?)\s*$/.exec(line)?.[1]);
  return found.findLast((dir) => dir !== undefined) ?? null;
}

/** The registry settings of pip config files, as one `[global]` section; later files win. */
export function pipConfig(lines: readonly string[], keep_credentials: boolean): string {
  const settings = new Map<string, string[]>();
  let key: string | null = null;
  for (const line of lines) {
    const match = /^([a-z-]+)\s*[=:]\s*(.*)$/.exec(line);
    if (match) {
      key = PIP_KEYS.test(match[1]!) ? match[1]! : null;
      if (key !== null) settings.set(key, [match[2]!.trim()]);
    } else if (/^\s+\S/.test(line) && key !== null) {
      settings.get(key)!.push(line.trim());
    } else if (line.startsWith('[')) {
      key = null;
    }
  }
  if (settings.size === 0) return '';
  const text = [...settings].map(([name, values]) => `${name} = ${values.join('\n    ')}\n`).join('');
  return `[global]\n${keep_credentials ? text : withoutCredentials(text)}`;
}

async function readLines(paths: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(paths.map((path) => readFile(path, 'utf8').catch(() => '')));
  return texts.flatMap((text) => text.split(/\r?\n/)).filter((line) => !/^\s*[#;]/.test(line));
}

/** What `go env` says, which also reads Go's own configuration file. Empty without Go. */
async function goSettings({
  host_env,
  answers = ASKED_ANEW,
}: DriverOptions): Promise<Record<string, string>> {
  const entries = searchEntries(host_env.PATH ?? '');
  const home = host_env.HOME ?? homedir();
  try {
    const go = await firstExecutable(entries.map((entry) => join(entry, 'go')));
    if (go === null) return {};
    const args = ['env', '-json', 'GOROOT', ...GO_SETTINGS];
    const said = await answers.ask({ file: go, args, search: entries.join(':'), home });
    const text = said.lines.join('\n');
    const { GOROOT = '', ...settings } = JSON.parse(text) as Record<string, string>;
    // An answer with credentials in it is not written down.
    if (text === withoutCredentials(text) && (await isSame(go, join(GOROOT, 'bin/go'))))
      await said.decidedBy(goFiles(go, GOROOT, home));
    return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== ''));
  } catch {
    // Not the answer of a Go tool: go on without.
    return {};
  }
}

async function firstExecutable(files: string[]): Promise<string | null> {
  for (const file of files) if (await isExecutable(file)) return file;
  return null;
}

/** Absolute paths among certificate and find-links settings. */
function namedPaths(env: Record<string, string>, files: readonly HomeFile[]): string[] {
  const words = [...CERTIFICATES, ...PATHS]
    .flatMap((name) => (env[name] ?? '').split(/[\s,]+/))
    .concat(
      files.flatMap((file) =>
        file.text
          .split('\n')
          .filter((line) => /^(cafile|cert|find-links| )/.test(line))
          .flatMap((line) => line.split(/[\s=]+/)),
      ),
    )
    .map((word) => word.replace(/^file:\/\//, ''));
  return [...new Set(words.filter((word) => isAbsolute(word) && word !== '/'))];
}

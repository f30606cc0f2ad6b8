/** What version files ask for, in the words of each ecosystem, as ranges that `semver` can judge. */
import semver from 'semver';

/** Long-term support lines of Node by the names that `lts/<name>` uses. */
const NODE_LTS: Record<string, string> = {
  fermium: '14',
  gallium: '16',
  hydrogen: '18',
  iron: '20',
  jod: '22',
  krypton: '24',
};
const NODE_NEWEST_LTS = '24';
const MAX_LENGTH = 100;

/**
 * The semver range that `wanted` means to tool `name`: '*' when any version will do, null when it cannot be
 * understood (another implementation such as PyPy, a branch, a path).
 */
export function versionRange(name: string, wanted: string): string | null {
  const text = wanted.trim().slice(0, MAX_LENGTH).toLowerCase();
  if (/^(?:|\*|latest|stable|current|system|default|node)$/.test(text)) return '*';
  const range = (DIALECTS[name] ?? asWritten)(text);
  return range === null ? null : semver.validRange(range);
}

const asWritten = (text: string): string => text;

const DIALECTS: Record<string, (text: string) => string | null> = {
  node: (text) => {
    const line = /^lts(?:\/([\w*-]+))?$/.exec(text);
    if (!line) return text.replace(/^node-/, '');
    return line[1] === undefined || line[1] === '*' ? NODE_NEWEST_LTS : (NODE_LTS[line[1]] ?? null);
  },
  python3: (text) => each(text.replace(/^(?:cpython|python)-?/, ''), ',', pep440),
  // A pin names what it was built with as well: 1.18.0-otp-27.
  elixir: (text) => each(text.replace(/-otp-\d+$/, ''), ' and ', pessimistic),
  ruby: (text) => each(text.replace(/^ruby-/, ''), ',', pessimistic),
  php: (text) => text.split(/\|\|?/).map(composer).join(' || '),
  // 'temurin-21.0.3+9', 'openjdk-21', 'corretto-17', and the 1.8 of old.
  java: (text) =>
    text
      .replace(/^[a-z][a-z-]*-(?=\d)/, '')
      .replace(/^(>=)?1\.(?=\d)/, '$1')
      .replace(/[+_].*$/, ''),
  go: (text) => text.replace(/^(>=)?go/, '$1'),
  cargo: (text) => (/^(?:nightly|beta)/.test(text) ? null : text.replace(/-(?:x86_64|aarch64).*$/, '')),
};

/** The parts of a list, all of which must hold. */
const each = (text: string, separator: string, one: (part: string) => string): string =>
  text
    .split(separator)
    .map((part) => one(part.trim()))
    .join(' ');

/** `~=3.10` is 3.10 and up within 3; `==3.11.*`, `!=3.9.*`. */
function pep440(part: string): string {
  const compatible = /^~=\s*(\d+(?:\.\d+)*)$/.exec(part);
  if (compatible) return upTo(compatible[1]!);
  // semver has no "not": what is left out is a broken patch of old, in practice.
  if (part.startsWith('!=')) return '*';
  return part.replace(/^={2,3}\s*/, '');
}

/** `~> 3.2` is 3.2 and up within 3; `~> 3.2.1` within 3.2. */
function pessimistic(part: string): string {
  const found = /^~>\s*(\d+(?:\.\d+)*)$/.exec(part);
  return found ? upTo(found[1]!) : part.replace(/^==?\s*/, '');
}

/** Composer's `~8.1` is 8.1 and up within 8; a comma joins as a space does. */
const composer = (part: string): string =>
  part
    .split(/[\s,]+/)
    .filter(Boolean)
    .map((one) => (/^~\d+\.\d+$/.test(one) ? upTo(one.slice(1)) : one))
    .join(' ');

/** Everything from `version` on with the same numbers but the last one. */
function upTo(version: string): string {
  const parts = version.split('.').map(Number);
  const fixed = parts.slice(0, Math.max(1, parts.length - 1));
  const last = fixed.length - 1;
  return `>=${padded(parts)} <${padded(fixed.map((part, at) => (at === last ? part + 1 : part)))}`;
}

const padded = (parts: number[]): string => [...parts, 0, 0].slice(0, 3).join('.');

/** '3.11', 'v22.1.0', '1.18.0-otp-27' as a full version; null when there is no number in it. */
export const fullVersion = (version: string): string | null =>
  semver.coerce(version.slice(0, MAX_LENGTH))?.version ?? null;

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CommandOptions, runCommand } from './command.ts';
import type { Recipe } from './recipe.ts';

const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * Where Debian packages come from: the snapshot of the recipe, else the host's own sources for that release, else
 * mmdebstrap's default. The host's are used as they are and are not part of the image.
 */
export async function debianSources(dir: string, recipe: Recipe): Promise<{ path: string[]; keep: string }> {
  if (recipe.snapshot !== null) {
    const url = `http://snapshot.debian.org/archive/debian/${recipe.snapshot}/`;
    const line = `deb [check-valid-until=no signed-by=${DEBIAN_KEYRING}] ${url} ${recipe.suite} main\n`;
    await writeFile(join(dir, 'snapshot.list'), line);
    return { path: ['snapshot.list'], keep: `snapshot ${recipe.snapshot}` };
  }
  const found: string[] = [];
  const folder = '/etc/apt/sources.list.d';
  const files = [
    '/etc/apt/sources.list',
    ...(await readdir(folder).catch(() => [])).map((f) => join(folder, f)),
  ];
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => '');
    if (file.endsWith('.sources')) found.push(...deb822(text, recipe.suite));
    else if (file.endsWith('.list')) found.push(...oneLine(text, recipe.suite));
  }
  const kinds = [found.filter((part) => part.includes('\n')), found.filter((part) => !part.includes('\n'))];
  const paths: string[] = [];
  for (const [index, parts] of kinds.entries()) {
    if (parts.length === 0) continue;
    const name = index === 0 ? 'host.sources' : 'host.list';
    await writeFile(join(dir, name), `${parts.join('\n\n')}\n`);
    paths.push(name);
  }
  return { path: paths, keep: paths.length > 0 ? "from the host's mirrors" : 'from the default mirror' };
}

/** The stanzas of a deb822 file that are for the suite (and its updates) and signed by Debian. */
export function deb822(text: string, suite: string): string[] {
  const stanzas = text.split(/\n\s*\n/).map((stanza) => stanza.replace(/^#.*\n?/gm, '').trim());
  return stanzas.filter((stanza) => {
    const suites = /^Suites:\s*(.+)$/im.exec(stanza)?.[1]?.split(/\s+/) ?? [];
    const signed = /^Signed-By:\s*(\S+)/im.exec(stanza)?.[1] ?? DEBIAN_KEYRING;
    const wanted = suites.length > 0 && suites.every((one) => one.split('-')[0] === suite);
    return wanted && /debian-archive/.test(signed) && !/^Enabled:\s*no/im.test(stanza);
  });
}

export function oneLine(text: string, suite: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => {
      const [, options = '', words = ''] = /^deb\s+(\[[^\]]*\]\s+)?(.*)$/.exec(line) ?? [];
      const signed = /signed-by=(\S+?)\]?(\s|$)/.exec(options)?.[1] ?? DEBIAN_KEYRING;
      return words.split(/\s+/)[1]?.split('-')[0] === suite && /debian-archive/.test(signed);
    });
}

/** The host's proxy, certificate and retry settings for apt. mmdebstrap does not read them by itself. */
export async function aptOptions(command: CommandOptions): Promise<string[]> {
  const text = await runCommand('apt-config', ['dump', 'Acquire'], command);
  return text
    .split('\n')
    .filter((line) => /^Acquire::(http|https|Retries)\b.* "[^"]+";$/.test(line))
    .map((line) => line.replace(/;$/, ''));
}

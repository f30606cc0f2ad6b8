/** What a rule about a JavaScript framework answers, and how it reads the framework's config files. */
import type { Evidence, ReleaseKind } from '../../../domain/plan.ts';
import { cleanPath } from '../../files.ts';
import type { NodePackage } from './package.ts';

export interface FrameworkPlan {
  framework: string;
  kind: ReleaseKind;
  /** Used when package.json has no build script; null when nothing has to be built. */
  build: string | null;
  after_build?: string[];
  start?: string;
  /** Static: folder to serve, relative to the app. */
  output?: string;
  spa_fallback?: string | null;
  extra_install?: string[];
  build_env?: Record<string, string>;
  run_env?: Record<string, string>;
  evidence?: Evidence[];
  warnings?: string[];
}

export type FrameworkResult = FrameworkPlan | { stuck: string; next_step: string } | null;

export const extensions = (name: string) =>
  ['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'].map((extension) => `${name}.${extension}`);

/** A setting in a config file ('a|b': either), read from its text, never run. Comment lines do not count. */
export function setting(pkg: NodePackage, config: string, what: RegExp) {
  const files = config
    .split('|')
    .flatMap(extensions)
    .filter((file) => pkg.app.exists(file));
  return pkg.app.search(files, new RegExp(`^(?!\\s*(?://|\\*|/\\*)).*?${what.source}`, what.flags));
}

export function folderSetting(pkg: NodePackage, config: string, key: string): string | null {
  const hit = setting(pkg, config, new RegExp(`\\b${key}\\s*[:=]\\s*['"\`]([^'"\`$]{1,200})['"\`]`));
  return hit ? cleanPath(hit.match[1]!.replace(/^\/+/, '')) : null;
}

export const seen = (
  pkg: NodePackage,
  hit: { file: string; line: number; match: RegExpExecArray },
  follows: string,
): Evidence => ({
  ...pkg.app.evidence(hit.file, hit.match[0].trim().slice(0, 120), follows),
  line: hit.line,
});

import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { MachineExit } from '../driver.ts';
import type { ImageBuildSpec } from '../image-builder.ts';
import { readUntrustedFile } from '../untrusted-file.ts';

/**
 * A Dockerfile can name the image that reads it (`# syntax=…`), and so can the build argument BUILDKIT_SYNTAX. BuildKit
 * pulls that frontend and runs it with the daemon's own network, and what it makes of the file is up to it: no step has
 * to keep to the network policy that was asked for. Docker's own frontend keeps to it.
 */
const TRUSTED =
  /^(?:(?:index\.)?docker\.io\/)?docker\/dockerfile(?:-upstream)?(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$/;
/** Begins the line of the log that says why; `explainImageBuild` looks for it. */
export const REFUSED = 'ERROR: [kiln] ';
const FRONTEND_ARGUMENT = 'BUILDKIT_SYNTAX';
const MOST_BYTES = 1 << 20;

/**
 * Every frontend that a Dockerfile asks for, in any of the forms that a BuildKit reads or has read: comments of `#` or `//`
 * before the first line that is none, after a byte order mark and a `#!` line. JSON counts as one: that is no Dockerfile.
 */
export function namedFrontends(text: string): string[] {
  const body = text.replace(/^\uFEFF/, '').replace(/^#!.*(\n|$)/, '');
  if (/^\s*\{/.test(body)) return ['JSON'];
  return [...directives(body, '#'), ...directives(body, '//')];
}

/** Go takes U+0085 for white space, which JavaScript does not. */
const DIRECTIVE = /^[\s\u0085]*([a-z][a-z0-9]*)[\s\u0085]*=(.*)$/is;

function directives(text: string, comment: string): string[] {
  const named: string[] = [];
  for (const line of text.split('\n')) {
    const match = line.startsWith(comment) ? DIRECTIVE.exec(line.slice(comment.length)) : null;
    if (match === null) break;
    // What comes after a space is handed to the frontend, and not part of its name.
    if (match[1]!.toLowerCase() === 'syntax') named.push(match[2]!.trim().split(' ')[0]!);
  }
  return named;
}

/** The end of a build that must not begin, after the log was told why; null when it may. */
export async function refuseFrontend(
  spec: Pick<ImageBuildSpec, 'build_args' | 'context_dir' | 'dockerfile' | 'network' | 'on_output'>,
  /** Whether the policy holds for BuildKit itself, frontends included: in a machine of its own. */
  o: { network_is_held: boolean },
): Promise<MachineExit | null> {
  const why =
    argumentProblem(spec) ??
    (o.network_is_held || spec.network.mode === 'open' ? null : await fileProblem(spec));
  if (why === null) return null;
  spec.on_output('stderr', Buffer.from(`${REFUSED}${why}\n`));
  return {
    ...{ reason: 'exited', exit_code: 1, signal: null },
    ...{ peak_memory_bytes: 0, peak_processes: 0, duration_ms: 0 },
  };
}

function argumentProblem({ build_args }: Pick<ImageBuildSpec, 'build_args'>): string | null {
  return Object.hasOwn(build_args, FRONTEND_ARGUMENT)
    ? `the build variable ${FRONTEND_ARGUMENT} would choose the program that reads the Dockerfile`
    : null;
}

async function fileProblem(
  spec: Pick<ImageBuildSpec, 'context_dir' | 'dockerfile' | 'network'>,
): Promise<string | null> {
  const path = await dockerfileOf(spec);
  if (path === null) return null;
  const policy = `under the network policy \`${spec.network.mode}\``;
  // BuildKit resolves links by rules of its own: what was read here might not be what it reads.
  if ((await realpath(path).catch(() => null)) !== path)
    return `the Dockerfile is reached over a link, which is not possible ${policy}`;
  const text = readUntrustedFile(path, MOST_BYTES);
  if (text === null || text.length >= MOST_BYTES)
    return 'the Dockerfile is no plain file of less than a megabyte';
  const wrong = namedFrontends(text).find((name) => !TRUSTED.test(name));
  if (wrong === undefined) return null;
  return `the Dockerfile asks for ${JSON.stringify(wrong)} to read it, which is not possible ${policy}: it would run beyond it`;
}

/** The file that BuildKit will read; null when there is none, which it says itself. */
async function dockerfileOf(
  spec: Pick<ImageBuildSpec, 'context_dir' | 'dockerfile'>,
): Promise<string | null> {
  const path = join(await realpath(spec.context_dir), spec.dockerfile);
  const names = basename(path) === 'Dockerfile' ? ['Dockerfile', 'dockerfile'] : [basename(path)];
  for (const name of names) {
    const candidate = join(dirname(path), name);
    if (await lstat(candidate).catch(() => null)) return candidate;
  }
  return null;
}

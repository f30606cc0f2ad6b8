import { REFUSED } from './frontend.ts';

/**
 * Why a Dockerfile build failed, read from BuildKit's plain progress: embedded in Docker 20.10 and later, or behind
 * buildctl. Lines of a step's own output carry a time (`#7 0.172 text`) and are never taken for BuildKit's words.
 */
export type ImageBuildCode =
  | 'STEP_FAILED'
  | 'SECRET_MISSING'
  | 'COPY_SOURCE_MISSING'
  | 'BASE_IMAGE_MISSING'
  | 'REGISTRY_UNREACHABLE'
  | 'DOCKERFILE_MISSING'
  | 'DOCKERFILE_INVALID'
  | 'TARGET_MISSING'
  | 'DISK_FULL'
  | 'BUILD_FAILED';

export interface ImageBuildExplanation {
  code: ImageBuildCode;
  /** What happened, one sentence. */
  message: string;
  next_step: string;
}

interface Verdict {
  /** BuildKit's own words about the failure. */
  text: string;
  /** `[build 3/4] RUN npm ci`, as the log names the step that failed; null when no step did. */
  step: { title: string; output: string } | null;
}

type Rule = (verdict: Verdict) => ImageBuildExplanation | null;

/** The first rule that fits wins; the last always does. */
export function explainImageBuild(log: string): ImageBuildExplanation {
  const verdict = readVerdict(log);
  for (const rule of RULES) {
    const found = rule(verdict);
    if (found !== null) return found;
  }
  const last = verdict.text.split('\n').filter(Boolean).at(-1) ?? 'it said nothing';
  return {
    code: 'BUILD_FAILED',
    message: `The image could not be built: ${last}.`,
    next_step: 'Read the build log; the last lines are BuildKit’s own.',
  };
}

const RULES: readonly Rule[] = [
  frontendRefused,
  diskFull,
  dockerfileMissing,
  targetMissing,
  dockerfileInvalid,
  copySourceMissing,
  registryUnreachable,
  baseImageMissing,
  stepFailed,
];

function readVerdict(log: string): Verdict {
  const titles = new Map<string, string>();
  const outputs = new Map<string, string[]>();
  const words: string[] = [];
  let failed: string | null = null;
  for (const line of log.split(/\r?\n/)) {
    const match = /^#(\d+) (.*)$/.exec(line);
    if (match === null) {
      words.push(line);
      continue;
    }
    const [, number, text] = match as unknown as [string, string, string];
    if (text.startsWith('ERROR: ')) {
      // Steps that were cancelled because another one failed are no cause.
      if (/context canceled/i.test(text) && failed !== null) continue;
      failed = number;
      words.push(text);
    } else if (/^\d+\.\d+ /.test(text)) {
      const output = outputs.get(number) ?? [];
      output.push(text.slice(text.indexOf(' ') + 1));
      outputs.set(number, output.slice(-50));
    } else if (text.startsWith('[') && !titles.has(number)) titles.set(number, text);
  }
  const title = failed === null ? undefined : titles.get(failed);
  return {
    text: words.join('\n'),
    step: title === undefined ? null : { title, output: (outputs.get(failed!) ?? []).join('\n') },
  };
}

/** Kiln's own words, before BuildKit had any (frontend.ts). */
function frontendRefused({ text }: Verdict): ImageBuildExplanation | null {
  if (!text.startsWith(REFUSED)) return null;
  const why = text.slice(REFUSED.length).split('\n')[0]!;
  return {
    code: 'DOCKERFILE_INVALID',
    message: `The Dockerfile was not built: ${why}.`,
    next_step:
      'Let a plain Dockerfile be read by docker/dockerfile of Docker Hub or by BuildKit itself (without `# syntax=`, without BUILDKIT_SYNTAX), or build in a microVM.',
  };
}

function diskFull({ text, step }: Verdict): ImageBuildExplanation | null {
  if (!/no space left on device/i.test(`${text}\n${step?.output ?? ''}`)) return null;
  return {
    code: 'DISK_FULL',
    message: `The disk was full${step ? ` in step ${step.title}` : ''}.`,
    next_step: 'Make the image smaller (multi-stage, .dockerignore), or free disk space for builds.',
  };
}

function dockerfileMissing({ text }: Verdict): ImageBuildExplanation | null {
  const found =
    /failed to read dockerfile: (?:open ([^:\s]+): )?.*no such file|unable to prepare context: .*Dockerfile/i;
  const match = found.exec(text);
  if (match === null) return null;
  return {
    code: 'DOCKERFILE_MISSING',
    message: `There is no file ${match[1] ?? 'Dockerfile'} in the source.`,
    next_step: 'Add it, or set the Dockerfile’s name in the settings; a .dockerignore does not hide it.',
  };
}

function targetMissing({ text }: Verdict): ImageBuildExplanation | null {
  const match =
    /target stage "?([\w.-]+)"? could not be found|failed to reach build target ([\w.-]+) in Dockerfile/.exec(
      text,
    );
  if (match === null) return null;
  return {
    code: 'TARGET_MISSING',
    message: `The Dockerfile has no stage named ${match[1] ?? match[2]}.`,
    next_step: 'Name a stage that `FROM … AS <name>` makes, or remove the target from the settings.',
  };
}

function dockerfileInvalid({ text }: Verdict): ImageBuildExplanation | null {
  const match =
    /dockerfile parse error (?:on )?line (\d+): ([^\n]*)/i.exec(text) ??
    /()(?:failed to create LLB definition|failed to solve): (the Dockerfile cannot be empty|file with no instructions|no build stage in current context|no base name[^\n]*|[^\n]*base name \([^\n]*should not be blank|[^\n]*circular dependency[^\n]*|[^\n]*invalid (?:field|key|option|argument)[^\n]*|[^\n]*unknown flag[^\n]*)/i.exec(
      text,
    );
  if (match === null) return null;
  const where = match[1] ? ` in line ${match[1]}` : '';
  return {
    code: 'DOCKERFILE_INVALID',
    message: `The Dockerfile is not valid${where}: ${match[2]}.`,
    next_step: `Correct the Dockerfile${where}; instructions are listed at https://docs.docker.com/reference/dockerfile.`,
  };
}

function copySourceMissing({ text, step }: Verdict): ImageBuildExplanation | null {
  const match =
    /failed to (?:compute cache key|calculate checksum of ref)[^\n]*?"([^"\n]+)"[^\n]*not found/i.exec(
      text,
    ) ?? /(?:COPY|ADD) failed[^\n]*?:? ?(?:stat )?(\/?[\w./-]+)[^\n]*(?:no such file|not found)/i.exec(text);
  if (match === null) return null;
  return {
    code: 'COPY_SOURCE_MISSING',
    message: `${match[1]} is not in the build context${step ? ` (step ${step.title})` : ''}.`,
    next_step:
      'Check the path, which is relative to the source’s root, and that .dockerignore does not leave the file out.',
  };
}

const UNREACHABLE =
  /no such host|connection refused|i\/o timeout|network is unreachable|TLS handshake timeout|context deadline exceeded|x509:|server gave HTTP response to HTTPS client|temporary failure in name resolution/i;
const RESOLVING =
  /failed to (?:resolve|do request|fetch|create LLB definition|load metadata|copy|solve)|Get "https?:/i;

/** The image that a failed `load metadata for …` or `FROM …` step names. */
function imageOf({ text, step }: Verdict): string | null {
  return (
    /load metadata for (\S+)/.exec(step?.title ?? '')?.[1] ??
    /\bFROM (\S+)/.exec(step?.title ?? '')?.[1]?.replace(/@sha256:.*$/, '') ??
    /(?:failed to resolve source metadata for|failed to create LLB definition:) ([\w./:@-]+):? /
      .exec(text)?.[1]
      ?.replace(/:$/, '') ??
    null
  );
}

/** Steps whose commands ran are explained by their exit code, whatever words they end with. */
function ranCommand({ text }: Verdict): boolean {
  return /exit code: \d+/.test(text);
}

function registryUnreachable(verdict: Verdict): ImageBuildExplanation | null {
  if (ranCommand(verdict) || !RESOLVING.test(verdict.text)) return null;
  const why = UNREACHABLE.exec(verdict.text)?.[0];
  if (why === undefined) return null;
  const image = imageOf(verdict);
  return {
    code: 'REGISTRY_UNREACHABLE',
    message: `The registry${image ? ` of ${image}` : ''} could not be reached: ${why}.`,
    next_step:
      'Check the registry’s name and that the builder may reach it (network policy, proxy, certificates).',
  };
}

function baseImageMissing(verdict: Verdict): ImageBuildExplanation | null {
  if (ranCommand(verdict)) return null;
  const denied =
    /pull access denied|authorization failed|unauthorized|authentication required|403 Forbidden/i.test(
      verdict.text,
    );
  const absent =
    /(?:failed to resolve source metadata|failed to create LLB definition|load metadata)[^\n]*not found|manifest unknown|: not found$/im.test(
      verdict.text,
    );
  const image = imageOf(verdict);
  if (!denied && !(absent && image !== null)) return null;
  return {
    code: 'BASE_IMAGE_MISSING',
    message: `The base image ${image ?? ''}${image ? ' ' : ''}does not exist${denied ? ', or the registry asks for a login' : ''}.`,
    next_step: 'Check name and tag in FROM; for a private registry give the engine its credentials.',
  };
}

function stepFailed(verdict: Verdict): ImageBuildExplanation | null {
  const { text, step } = verdict;
  const secret = /secret (?:"?)([\w.-]+)(?:"?):? not found|unable to (?:open|find) secret "?([\w.-]+)/i.exec(
    text,
  );
  const file =
    /\/run\/secrets\/([\w.-]+)['"]?: (?:No such file|not found|can't open)|open '?\/run\/secrets\/([\w.-]+)'?: No such file/i.exec(
      step?.output ?? '',
    );
  const name = secret?.[1] ?? secret?.[2] ?? file?.[1] ?? file?.[2];
  if (name !== undefined)
    return {
      code: 'SECRET_MISSING',
      message: `The build asks for the secret ${name}, which was not given${step ? ` (step ${step.title})` : ''}.`,
      next_step: `Set ${name} as a secret build-time variable, and mount it with --mount=type=secret,id=${name}.`,
    };
  const exit_code = /exit code: (\d+)/.exec(text)?.[1];
  if (step === null || exit_code === undefined) return null;
  const killed = exit_code === '137' ? ' (killed, most likely because memory ran out)' : '';
  return {
    code: 'STEP_FAILED',
    message: `Step ${step.title} failed with exit code ${exit_code}${killed}.`,
    next_step:
      exit_code === '127'
        ? 'A command was not found: install it in an earlier step, or choose a base image that has it.'
        : 'Read the step’s last lines in the build log, and run the same command in the same base image.',
  };
}

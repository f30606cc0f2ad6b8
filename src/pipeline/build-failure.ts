import { type Failure, type FailureCode, failure } from '../domain/failure.ts';
import { explainImageBuild, type ImageBuildCode } from '../isolation/dockerfile/explain.ts';
import type { Limits, MachineExit } from '../isolation/driver.ts';
import { buildHint } from './build-hint.ts';

const SHOWN_LINES = 50;

/** Where the log of the build itself begins: before it stands the plan, which says nothing about the failure. */
const BUILD_BEGINS = '── build';

/** Null when the command succeeded; otherwise why it did not, and what to do. `log`: its last lines, for what they mean. Pure. */
export function buildFailure(
  exit: MachineExit,
  command: string,
  limits: Limits & { time_ms: number },
  log: string[],
): Failure | null {
  if (exit.reason === 'exited' && exit.exit_code === 0) return null;
  const { code, message, ...told } = explain(exit, command, limits);
  const own = log.slice(log.lastIndexOf(BUILD_BEGINS) + 1);
  const hint = code === 'BUILD_FAILED' ? buildHint(own) : null;
  const next_step = hint?.next_step ?? told.next_step;
  // npm prints its whole help after the line that says what is wrong.
  const last = own.slice(-SHOWN_LINES);
  const log_tail = hint === null || last.includes(hint.line) ? last : [hint.line, '…', ...last.slice(2)];
  const ours = exit.reason === 'machine_failed';
  return failure({
    ...(ours ? { fault: 'engine', retryable: true } : {}),
    stage: 'build',
    code,
    message,
    next_step,
    exit_code: exit.exit_code,
    signal: exit.signal,
    out_of_memory: exit.reason === 'out_of_memory',
    log_tail,
  });
}

/** The same for a Dockerfile: BuildKit says in its log which step failed, and why. */
export function imageBuildFailure(
  exit: MachineExit,
  log: string,
  limits: Limits & { time_ms: number },
  log_tail: string[],
): Failure {
  if (exit.reason !== 'exited') return buildFailure(exit, 'docker build', limits, log_tail)!;
  const { code, message, next_step } = explainImageBuild(log);
  return failure({
    stage: 'build',
    code: IMAGE_CODES[code],
    message,
    next_step,
    retryable: code === 'REGISTRY_UNREACHABLE',
    exit_code: exit.exit_code,
    signal: exit.signal,
    log_tail,
  });
}

const IMAGE_CODES: Record<ImageBuildCode, FailureCode> = {
  STEP_FAILED: 'BUILD_FAILED',
  SECRET_MISSING: 'BUILD_FAILED',
  COPY_SOURCE_MISSING: 'BUILD_FAILED',
  BASE_IMAGE_MISSING: 'BASE_IMAGE_MISSING',
  REGISTRY_UNREACHABLE: 'BASE_IMAGE_MISSING',
  DOCKERFILE_MISSING: 'DOCKERFILE_INVALID',
  DOCKERFILE_INVALID: 'DOCKERFILE_INVALID',
  TARGET_MISSING: 'DOCKERFILE_INVALID',
  DISK_FULL: 'BUILD_OUT_OF_DISK',
  BUILD_FAILED: 'BUILD_FAILED',
};

function explain(
  exit: MachineExit,
  command: string,
  limits: Limits & { time_ms: number },
): { code: FailureCode; message: string; next_step: string } {
  // What makes programs findable is as long as it is uninteresting.
  const typed = command.replace(/^(?:export [^;]*; )+/, '');
  const shown = typed.length > 120 ? `${typed.slice(0, 117)}…` : typed;
  switch (exit.reason) {
    case 'timed_out':
      return {
        code: 'BUILD_TIMEOUT',
        message: `The build was stopped after its time limit of ${Math.round(limits.time_ms / 1000)} s, during \`${shown}\`.`,
        next_step:
          'Make the build faster, or raise the limit (--build-time-limit). A command that waits for input never ends.',
      };
    case 'out_of_memory':
      return {
        code: 'BUILD_OUT_OF_MEMORY',
        message: `\`${shown}\` needed more than the build's memory limit of ${mib(limits.memory_bytes)}.`,
        next_step: 'Lower what the build uses (fewer parallel workers), or raise the limit (--build-memory).',
      };
    case 'too_many_processes':
      return {
        code: 'BUILD_TOO_MANY_PROCESSES',
        message: `\`${shown}\` started more than ${limits.processes} processes.`,
        next_step: 'Limit the parallelism of the build.',
      };
    case 'out_of_disk':
      return {
        code: 'BUILD_OUT_OF_DISK',
        message: `\`${shown}\` wrote more than the build's disk limit of ${mib(limits.disk_bytes)}.`,
        next_step: 'Write less, or raise the limit (--build-disk).',
      };
    case 'machine_failed':
      return {
        code: 'MACHINE_FAILED',
        message: `The machine that ran \`${shown}\` broke down: ${exit.detail ?? 'it gave no reason'}`,
        next_step: 'Nothing is wrong with the app as far as anybody can tell: try again with `kiln retry`.',
      };
    case 'log_limit':
      return {
        code: 'BUILD_LOG_TOO_LARGE',
        message: `\`${shown}\` printed more than ${mib(limits.log_bytes)}.`,
        next_step: 'Make the build less talkative.',
      };
    default:
      return ended(exit, shown);
  }
}

function ended(exit: MachineExit, shown: string): { code: FailureCode; message: string; next_step: string } {
  if (exit.exit_code === 127)
    return {
      code: 'TOOLCHAIN_MISSING',
      message: `\`${shown}\` ended with exit code 127: a command it needs was not found.`,
      next_step:
        'The log names the command. Install it on the machine of the engine, or make it a dependency of the app.',
    };
  const how = exit.signal ? `was ended by ${exit.signal}` : `ended with exit code ${exit.exit_code}`;
  return {
    code: 'BUILD_FAILED',
    message: `\`${shown}\` ${how}.`,
    next_step: 'Read the end of the build log, fix the app and publish again. Production is unchanged.',
  };
}

function mib(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}

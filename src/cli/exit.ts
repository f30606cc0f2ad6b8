/** How a command ends: exit codes, and the one error type that carries a code, a request id and a next step. */
import { ERROR_CODES, type ErrorCode } from '../domain/errors.ts';
import type { Failure } from '../domain/failure.ts';

export const EXIT = {
  ok: 0,
  engine: 1,
  input: 2,
  build: 3,
  unhealthy: 4,
  cancelled: 5,
  unreachable: 6,
  interrupted: 130,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export const EXIT_HELP = `Exit codes:
  0    done
  1    the engine failed (its log: <data>/logs/engine.log)
  2    bad input: an option, a path, a name or a key
  3    your build failed
  4    your app is not healthy
  5    cancelled, or superseded by a newer publish, promote or rollback
  6    no engine reachable
  130  interrupted`;

/** An end with an explanation: `message` says what happened, `next_step` what to do. */
export class CliError extends Error {
  readonly exit_code: ExitCode;
  readonly code: string;
  readonly next_step: string | null;
  readonly request_id: string | null;
  /** Field name to messages, for validation errors. */
  readonly fields: Record<string, string[]> | null;

  constructor(
    exit_code: ExitCode,
    code: string,
    message: string,
    more: {
      next_step?: string | null;
      request_id?: string | null;
      fields?: Record<string, string[]> | null;
      cause?: unknown;
    } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'CliError';
    this.exit_code = exit_code;
    this.code = code;
    this.next_step = more.next_step ?? null;
    this.request_id = more.request_id ?? null;
    this.fields = more.fields ?? null;
  }
}

export function badInput(message: string, next_step: string | null = null): CliError {
  return new CliError(EXIT.input, 'BAD_INPUT', message, { next_step });
}

export function interrupted(): CliError {
  return new CliError(EXIT.interrupted, 'INTERRUPTED', 'Interrupted.');
}

/** Whose fault a failed version is decides the exit code; for the user's, the stage does. */
export function exitOfFailure(failure: Pick<Failure, 'code' | 'fault' | 'stage'>): ExitCode {
  if (failure.code === 'CANCELLED') return EXIT.cancelled;
  if (failure.fault === 'engine') return EXIT.engine;
  if (failure.fault === 'caller') return EXIT.input;
  return failure.stage === 'health' ? EXIT.unhealthy : EXIT.build;
}

const EXIT_OF_CODE: Partial<Record<ErrorCode, ExitCode>> = {
  NO_PLAN: EXIT.build,
  HEALTH_GATE_FAILED: EXIT.unhealthy,
  SUPERSEDED: EXIT.cancelled,
  RATE_LIMITED: EXIT.engine,
};

/** The exit code of an error from the table; `wire` is the code as an answer spells it, `status` decides for unknown ones. */
export function exitOfErrorCode(wire: string, status: number): ExitCode {
  const known = (Object.keys(ERROR_CODES) as ErrorCode[]).find(
    (code) => code === wire || ERROR_CODES[code].wire === wire,
  );
  if (!known) return status >= 500 ? EXIT.engine : EXIT.input;
  return EXIT_OF_CODE[known] ?? (ERROR_CODES[known].fault === 'engine' ? EXIT.engine : EXIT.input);
}

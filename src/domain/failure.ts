/**
 * Why a version failed, as data: shown by the API, the CLI and the log, and never guessed from text later.
 */
export type Stage = 'queued' | 'snapshot' | 'plan' | 'build' | 'release' | 'health' | 'promotion';

export type FailureCode =
  // the user's
  | 'NO_PLAN'
  | 'BUILDKIT_MISSING'
  | 'TOOLCHAIN_MISSING'
  | 'BUILD_FAILED'
  | 'BUILD_TIMEOUT'
  | 'BUILD_OUT_OF_MEMORY'
  | 'BUILD_OUT_OF_DISK'
  | 'BUILD_LOG_TOO_LARGE'
  | 'BUILD_TOO_MANY_PROCESSES'
  | 'DOCKERFILE_INVALID'
  | 'BASE_IMAGE_MISSING'
  | 'OUTPUT_MISSING'
  | 'OUTPUT_UNREADABLE'
  | 'ARTIFACT_TOO_LARGE'
  | 'APP_CRASHED'
  | 'APP_OUT_OF_MEMORY'
  | 'NEVER_LISTENED'
  | 'WRONG_PORT'
  | 'WRONG_ADDRESS'
  | 'HEALTH_STATUS'
  | 'HEALTH_TIMEOUT'
  | 'HEALTH_REDIRECT'
  | 'HEALTH_UNSTABLE'
  // somebody's wish
  | 'CANCELLED'
  // ours
  | 'ARTIFACT_GONE'
  | 'ARTIFACT_CORRUPT'
  | 'SOURCE_GONE'
  | 'NO_RUNTIME'
  | 'MACHINE_FAILED'
  | 'STAGE_TIMEOUT'
  | 'STORAGE_FAILED'
  | 'ENGINE_FAILED';

export interface ProbeAnswer {
  at: string;
  /** HTTP status, or null when there was none. */
  status: number | null;
  /** What went wrong without a status: refused, reset, timed out, … */
  error: string | null;
  location: string | null;
  duration_ms: number;
}

export interface ListeningPort {
  address: string;
  port: number;
}

export interface Failure {
  stage: Stage;
  code: FailureCode;
  /** What happened, one sentence. */
  message: string;
  /** What to do next, one or two sentences. */
  next_step: string;
  /** Would the same request, unchanged, have a chance to succeed? */
  retryable: boolean;
  /** Whose it is. */
  fault: 'user' | 'engine' | 'caller';
  exit_code: number | null;
  signal: string | null;
  out_of_memory: boolean;
  last_probe: ProbeAnswer | null;
  listening: ListeningPort[];
  /** Last lines of the build or instance log, at most 50, redacted. */
  log_tail: string[];
}

/** A failure with the fields that do not apply left empty. */
export function failure(
  of: Pick<Failure, 'stage' | 'code' | 'message' | 'next_step'> & Partial<Failure>,
): Failure {
  return {
    retryable: false,
    fault: 'user',
    exit_code: null,
    signal: null,
    out_of_memory: false,
    last_probe: null,
    listening: [],
    log_tail: [],
    ...of,
  };
}

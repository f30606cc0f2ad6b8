import { type Failure, failure } from '../domain/failure.ts';

/** An OCI release, and nothing here that runs images. `why` says what was tried and what to install. */
export function noRuntime(why: string): Failure {
  return failure({
    stage: 'health',
    code: 'NO_RUNTIME',
    fault: 'caller',
    message: `The release is an OCI image, and nothing on this machine runs images. ${why}`,
    next_step:
      'Install Docker (`kiln doctor` says what is missing) and start the engine again; then `kiln retry`.',
  });
}

import { KilnError } from '../domain/errors.ts';
import { type Failure, failure, type Stage } from '../domain/failure.ts';
import { BlobMismatch } from '../release/oci/store.ts';
import { DigestMismatch } from '../source/extract.ts';
import { StageDeadline } from './turn.ts';

/** A fault of the engine or of its storage, told to the user: nothing of theirs is wrong, and trying again may help. */
export function engineFailure(stage: Stage, error: unknown): Failure {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  const message = error instanceof Error ? error.message : String(error);
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return ours(
      stage,
      'STORAGE_FAILED',
      'The disk of the engine is full.',
      'Free space (`kiln gc`, `kiln doctor` shows what takes it), then `kiln retry`.',
    );
  if (error instanceof KilnError && error.code === 'ARTIFACT_GONE')
    return ours(stage, 'ARTIFACT_GONE', message, 'Publish again.');
  if (error instanceof BlobMismatch || (error instanceof DigestMismatch && stage === 'health'))
    return ours(
      stage,
      'ARTIFACT_CORRUPT',
      message,
      'Production is unchanged. Check the disk or the object store, then publish again: what is damaged is stored anew.',
    );
  if (error instanceof KilnError && error.code === 'STORAGE_FAILED')
    return ours(stage, 'STORAGE_FAILED', message, 'Check the object store, then `kiln retry`.');
  if (error instanceof StageDeadline)
    return ours(
      stage,
      'STAGE_TIMEOUT',
      `The operation was stopped: ${message}.`,
      'Try again with `kiln retry`; if it happens again, the engine log says more.',
    );
  return ours(
    stage,
    'ENGINE_FAILED',
    `The engine failed: ${message}`,
    'Production is unchanged. Try again with `kiln retry`; the engine log has the details.',
  );
}

function ours(stage: Stage, code: Failure['code'], message: string, next_step: string): Failure {
  return failure({ stage, code, message, next_step, retryable: true, fault: 'engine' });
}

/** What may be wrong with what a build left, so that no release can be made of it: the app's own faults. */
import { KilnError } from '../domain/errors.ts';
import { type Failure, failure } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import { BlobMismatch } from '../release/oci/store.ts';
import { ArtifactTooLarge, TreeUnreadable } from '../source/pack.ts';

/** Null for an error that says nothing of the output. `is_image`: what was read is the archive that a Dockerfile gave. */
export function outputFailure(plan: Plan, is_image: boolean, error: unknown): Failure | null {
  if (error instanceof ArtifactTooLarge) return tooLarge(plan, error);
  if (error instanceof TreeUnreadable) return unreadable(plan, error.message);
  if (!(error instanceof KilnError)) return null;
  if (error.code === 'FORBIDDEN_PATH') return unreadable(plan, error.message);
  if (error.code === 'SOURCE_TOO_LARGE') return tooMuch(plan, is_image, error);
  const is_no_image = error.code === 'INVALID_ARCHIVE' || error.code === 'UNSUPPORTED';
  return is_image && (is_no_image || error instanceof BlobMismatch) ? noImage(error) : null;
}

function tooLarge(plan: Plan, error: ArtifactTooLarge) {
  return failure({
    stage: 'release',
    code: 'ARTIFACT_TOO_LARGE',
    message: `The output (${plan.output_path}) is larger than the limit of ${Math.round(error.max_bytes / 1024 / 1024)} MiB.`,
    next_step:
      'Leave out what production does not need (source maps, caches, development dependencies), or raise the limit (--artifact-limit).',
  });
}

export function nothingPacked(plan: Plan) {
  return failure({
    stage: 'release',
    code: 'OUTPUT_MISSING',
    message: `The output folder ${plan.output_path} holds no file that may be served.`,
    next_step: 'Check that the build writes its files there, or name the right folder with --output-path.',
  });
}

function tooMuch(plan: Plan, is_image: boolean, error: KilnError) {
  return failure({
    stage: 'release',
    code: 'ARTIFACT_TOO_LARGE',
    message: `${is_image ? 'The image that the Dockerfile builds' : `The output (${plan.output_path})`} is over a limit. ${error.message}`,
    next_step:
      'Leave out what production does not need (caches, development dependencies), or raise the limit (--artifact-limit).',
  });
}

function unreadable(plan: Plan, why: string) {
  return failure({
    stage: 'release',
    code: 'OUTPUT_UNREADABLE',
    message: `The build left something in ${plan.output_path} that cannot be packed: ${why.replace(/\.$/, '')}.`,
    next_step:
      'Have the build give its files names in UTF-8 and leave them readable and still (a process that goes on writing must end), and publish again.',
  });
}

function noImage(error: KilnError) {
  return failure({
    stage: 'release',
    code: 'OUTPUT_UNREADABLE',
    message: `What the Dockerfile builds cannot be taken in as an image: ${error.message}`,
    next_step: 'Change the Dockerfile so that it builds a plain image for this machine, and publish again.',
  });
}

export function outputMissing(plan: Plan, folders: string[]) {
  return failure({
    stage: 'release',
    code: 'OUTPUT_MISSING',
    message: `After the build there is no folder ${plan.output_path}.`,
    next_step: `Name the folder that the build writes with --output-path. The folders there are: ${folders.slice(0, 20).join(', ') || 'none'}.`,
  });
}

import { KilnError } from '../domain/errors.ts';
import { relativePath } from '../source/paths.ts';
import { invalidFields } from './errors.ts';

/** A folder as callers name it in a body (`/workspace/x`, `./x`, `x`), relative to the workspace; `.` for all of it. */
export function workspacePath(given: string, field: string): string {
  try {
    return relativePath(given.trim()) || '.';
  } catch (error) {
    if (!(error instanceof KilnError)) throw error;
    throw invalidFields({ [field]: ['must be inside /workspace'] });
  }
}

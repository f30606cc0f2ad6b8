import path from 'node:path';
import { invalidFields } from './errors.ts';

/** A folder as callers name it (`/workspace/x`, `./x`, `x`), relative to the workspace; `.` for all of it. */
export function workspacePath(given: string, field: string): string {
  const normal = path.posix.normalize(given.trim() === '' ? '.' : given.trim()).replace(/(.)\/$/, '$1');
  const relative = normal === '/workspace' ? '.' : normal.replace(/^\/workspace\//, '');
  if (relative.startsWith('/') || relative === '..' || relative.startsWith('../'))
    throw invalidFields({ [field]: ['must be inside /workspace'] });
  return relative;
}

import { execFileSync } from 'node:child_process';

/** Is the program here, and does it end well with these arguments? */
export function works(file: string, ...args: string[]): boolean {
  try {
    execFileSync(file, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

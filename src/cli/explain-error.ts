/** Any error as one that a person or a program can act on. */
import { KilnError } from '../domain/errors.ts';
import { CliError, EXIT, exitOfErrorCode, interrupted } from './exit.ts';

export function explainError(error: unknown, signal: AbortSignal): CliError {
  if (error instanceof CliError) return error;
  if (error instanceof KilnError)
    return new CliError(exitOfErrorCode(error.code, 500), error.code, error.message, {
      fields: error.fields ?? null,
      cause: error,
    });
  if (signal.aborted) return interrupted();
  const { name, message, code } = error as NodeJS.ErrnoException;
  // A folder or file of the user's that cannot be read (source/tree.ts).
  if (name === 'TreeUnreadable')
    return new CliError(EXIT.input, 'UNREADABLE', `The folder cannot be read: ${message}.`, {
      next_step: 'Mend it, or leave it out with a line in .kilnignore (as in .gitignore), and publish again.',
    });
  if (code === 'EADDRINUSE')
    return new CliError(EXIT.input, 'PORT_TAKEN', `A port is taken by another program (${message}).`, {
      next_step: 'Give other ports with --api-port and --edge-port; 0 takes any free one.',
    });
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOENT' || code === 'ENOTDIR')
    return new CliError(EXIT.input, code, message);
  return new CliError(
    EXIT.engine,
    code ?? 'UNEXPECTED',
    `Unexpected: ${(error as Error)?.stack ?? String(error)}`,
    {
      next_step: 'This is a fault of Kiln.',
      cause: error,
    },
  );
}

/** The error as `--json` prints it. */
export function errorObject(error: CliError): Record<string, unknown> {
  const { exit_code, code, message, next_step, request_id, fields } = error;
  return {
    event: 'error',
    ok: false,
    exit_code,
    error: { code, message, next_step, request_id, ...(fields === null ? {} : { fields }) },
  };
}

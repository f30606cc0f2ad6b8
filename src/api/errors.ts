/** The one place that turns an error into a response and a log line. */
import type { ZodError } from 'zod';
import { ERROR_CODES, KilnError } from '../domain/errors.ts';
import type { ApiDeps } from './call.ts';
import type { ErrorBody } from './contract/error.ts';
import { inWords } from './issue.ts';

export function respondError(
  error: unknown,
  request_id: string,
  request: Request,
  log: ApiDeps['log'],
): Response {
  const known = error instanceof KilnError;
  const code = known ? error.code : 'INTERNAL_ERROR';
  const { status } = ERROR_CODES[code];
  if (status >= 500 && !request.signal.aborted)
    log('error', known ? error.message : 'unexpected fault', {
      request_id,
      method: request.method,
      path: new URL(request.url).pathname,
      code,
      stack: error instanceof Error ? stackOf(error) : String(error),
    });
  return errorAnswer(error, request_id);
}

/** The answer alone, also for what never became a request. */
export function errorAnswer(error: unknown, request_id: string): Response {
  const known = error instanceof KilnError;
  const code = known ? error.code : 'INTERNAL_ERROR';
  const { status, wire } = ERROR_CODES[code];
  const message = known
    ? error.message
    : `The engine met a fault it did not expect. Its log has it under ${request_id}; trying again may help.`;
  const details = known ? error.details : undefined;
  const retry_after = code === 'RATE_LIMITED' ? Number(details?.retry_after ?? 1) : undefined;
  const body: ErrorBody = {
    error: { code: wire, message, request_id, ...(details ? { details } : {}) },
    message,
    code: wire,
    request_id,
    ...(known && error.fields ? { errors: error.fields } : {}),
    ...(retry_after === undefined ? {} : { retry_after }),
  };
  const headers: Record<string, string> = { 'content-type': 'application/json', 'x-request-id': request_id };
  if (retry_after !== undefined) headers['retry-after'] = String(retry_after);
  if (code === 'INVALID_TOKEN') headers['www-authenticate'] = 'Bearer';
  if (code === 'METHOD_NOT_ALLOWED') headers.allow = String(details?.allow ?? '');
  // The rest of a body nobody reads would keep the connection busy: let the server close it.
  if (code === 'FILE_TOO_LARGE') headers.connection = 'close';
  return new Response(JSON.stringify(body), { status, headers });
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${error.cause.stack}` : '';
  return `${error.stack}${cause}`;
}

/** One message per field; nested fields with dots, the body itself as `body`. */
export function invalid(error: ZodError, where: string): KilnError {
  const fields: Record<string, string[]> = {};
  for (const issue of error.issues) {
    const name = issue.path.length === 0 ? where : issue.path.map(String).join('.');
    const messages = fields[name] ?? [];
    if (messages.length < 10) messages.push(inWords(issue));
    fields[name] = messages;
    if (Object.keys(fields).length >= 100) break;
  }
  return invalidFields(fields);
}

export function invalidFields(fields: Record<string, string[]>): KilnError {
  const [first] = Object.entries(fields);
  const more = Object.keys(fields).length - 1;
  const message = first
    ? `${first[0]}: ${first[1][0]}${more > 0 ? ` (and ${more} more)` : ''}`
    : 'The request is not valid.';
  return new KilnError('VALIDATION_ERROR', message, { fields });
}

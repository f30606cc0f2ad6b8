/** Reading a request body: never more than its limit, JSON in any of the ways that clients send it. */
import { KilnError } from '../domain/errors.ts';
import type { ApiDeps } from './call.ts';
import type { BodySize } from './contract/route.ts';

export function limitOf(size: BodySize, limits: ApiDeps['limits']): number {
  if (size === 'archive') return limits.archive_bytes;
  // Base64 is a third longer than what it holds, and there is JSON around it.
  if (size === 'file') return Math.max(limits.body_bytes, Math.ceil(limits.file_bytes * 1.37) + 65_536);
  return limits.body_bytes;
}

export function tooLarge(max_bytes: number): KilnError {
  return new KilnError('FILE_TOO_LARGE', `The body is larger than the limit of ${max_bytes} bytes.`);
}

/** Errors: FILE_TOO_LARGE. */
export async function readBody(request: Request, max_bytes: number): Promise<Buffer> {
  refuseDeclared(request, max_bytes);
  if (!request.body) return Buffer.alloc(0);
  const chunks: Uint8Array[] = [];
  let size_bytes = 0;
  for await (const chunk of request.body as unknown as AsyncIterable<Uint8Array>) {
    size_bytes += chunk.byteLength;
    if (size_bytes > max_bytes) throw tooLarge(max_bytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The body as it comes, for those who unpack it on the way. Errors (while reading): FILE_TOO_LARGE. */
export async function* streamBody(request: Request, max_bytes: number): AsyncGenerator<Uint8Array> {
  refuseDeclared(request, max_bytes);
  if (!request.body) return;
  let size_bytes = 0;
  for await (const chunk of request.body as unknown as AsyncIterable<Uint8Array>) {
    size_bytes += chunk.byteLength;
    if (size_bytes > max_bytes) throw tooLarge(max_bytes);
    yield chunk;
  }
}

function refuseDeclared(request: Request, max_bytes: number): void {
  if (Number(request.headers.get('content-length') ?? 0) > max_bytes) throw tooLarge(max_bytes);
}

/**
 * The body as an object. Empty means `{}` whatever the content type says; the types that `curl -d` and old clients
 * put on JSON are accepted. Errors: INVALID_JSON, UNSUPPORTED_MEDIA_TYPE, VALIDATION_ERROR.
 */
export function parseJson(bytes: Buffer, content_type: string | null): Record<string, unknown> {
  if (bytes.length === 0) return {};
  const type = (content_type ?? '').split(';')[0]!.trim().toLowerCase();
  if (
    type !== '' &&
    !/json$/.test(type) &&
    type !== 'text/plain' &&
    type !== 'application/x-www-form-urlencoded'
  )
    throw new KilnError(
      'UNSUPPORTED_MEDIA_TYPE',
      `This call takes application/json, not ${type.slice(0, 100)}.`,
    );
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new KilnError('INVALID_JSON', `The body is not valid JSON: ${(error as Error).message}`);
  }
  if (value === null) return {};
  if (typeof value !== 'object' || Array.isArray(value))
    throw new KilnError('VALIDATION_ERROR', 'The body must be a JSON object.', {
      fields: { body: ['must be a JSON object'] },
    });
  checkStorable(value);
  return value as Record<string, unknown>;
}

const DEPTH = 64;

/** What no database takes (NUL, half a surrogate pair) or no stack (endless nesting) is refused here, once for all fields. */
function checkStorable(root: unknown): void {
  const left: [unknown, number][] = [[root, 0]];
  for (let next = left.pop(); next; next = left.pop()) {
    const [value, depth] = next;
    if (typeof value === 'string') checkText(value, 'body');
    if (typeof value !== 'object' || value === null) continue;
    if (depth > DEPTH)
      throw new KilnError('VALIDATION_ERROR', `The body is nested more than ${DEPTH} levels deep.`, {
        fields: { body: [`must be nested at most ${DEPTH} levels deep`] },
      });
    for (const [name, inner] of Object.entries(value)) {
      checkText(name, 'body');
      left.push([inner, depth + 1]);
    }
  }
}

export function checkText(text: string, field: string): void {
  if (!text.includes('\0') && text.isWellFormed()) return;
  throw new KilnError('VALIDATION_ERROR', `${field}: text must not hold NUL or half a character.`, {
    fields: { [field]: ['must not hold NUL or half a character'] },
  });
}

/** `buildCommand` is read as `build_command` where the call knows that field and it is not given itself. */
export function foldAliases(
  body: Record<string, unknown>,
  known: readonly string[],
): Record<string, unknown> {
  const fields = new Set(known);
  const folded = { ...body };
  for (const [name, value] of Object.entries(body)) {
    if (fields.has(name) || !/[A-Z]/.test(name)) continue;
    const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (fields.has(snake) && folded[snake] === undefined) folded[snake] = value;
  }
  return folded;
}

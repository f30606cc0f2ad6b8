import { KilnError } from '../domain/errors.ts';

/** Lists run from newest to oldest; a cursor is the id of the last row seen, which ids being ordered makes stable. */
export interface PageRequest {
  limit: number;
  cursor: string | null;
  /** Rows to pass over (page/page_size callers); 0 with a cursor. */
  offset: number;
}

export interface Page<T> {
  data: T[];
  next_cursor: string | null;
}

export const FIRST_PAGE: PageRequest = { limit: 50, cursor: null, offset: 0 };

/** `rows` holds up to limit + 1 rows; the extra one only tells that there are more. */
export function toPage<T extends { id: string }>(rows: T[], request: PageRequest): Page<T> {
  const data = rows.slice(0, request.limit);
  const last = data.at(-1);
  return { data, next_cursor: rows.length > request.limit && last ? encodeCursor(last.id) : null };
}

export function encodeCursor(id: string): string {
  return Buffer.from(`c1:${id}`).toString('base64url');
}

export function decodeCursor(text: string): string {
  const plain = Buffer.from(text, 'base64url').toString('utf8');
  if (!/^c1:[a-z]+_[0-9a-z]{26}$/.test(plain))
    throw new KilnError(
      'INVALID_CURSOR',
      'This cursor was not made by this list; start again without `cursor`.',
    );
  return plain.slice(3);
}

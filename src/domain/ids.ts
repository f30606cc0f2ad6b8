/**
 * Ids: `<prefix>_<26 characters>`, the characters being a ULID in lower-case Crockford base 32:
 * 10 of time (milliseconds), 16 of randomness. They sort by creation time and are opaque on input.
 * Source of the format: github.com/ulid/spec.
 */
export type IdPrefix =
  | 'ten'
  | 'ws'
  | 'prj'
  | 'sbx'
  | 'snp'
  | 'exp'
  | 'dep'
  | 'ver'
  | 'rel'
  | 'svc'
  | 'bld'
  | 'ins'
  | 'op'
  | 'evt'
  | 'wh'
  | 'whd'
  | 'key'
  | 'req'
  | 'dom'
  | 'env'
  | 'mch'
  | 'aud'
  | 'apr';

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** A new id. `now_ms` is Unix time in milliseconds; `random` must give 16 bytes. */
export function makeId(prefix: IdPrefix, now_ms: number, random: Uint8Array): string {
  let time = '';
  let rest = Math.floor(now_ms);
  for (let i = 0; i < 10; i++) {
    time = ALPHABET[rest % 32] + time;
    rest = Math.floor(rest / 32);
  }
  let tail = '';
  for (let i = 0; i < 16; i++) tail += ALPHABET[random[i]! & 31];
  return `${prefix}_${time}${tail}`;
}

/**
 * Reads a tar that anybody may have written: ustar, pax and GNU long names. Fed with pieces of any size; holds no
 * more than one header at a time. Every way an archive can lie about itself ends in INVALID_ARCHIVE, naming the entry.
 * (tar-stream buffers a pax header of any length and passes names through as they are; this one cannot.)
 */
import { isUtf8 } from 'node:buffer';
import { KilnError } from '../domain/errors.ts';
import { BLOCK, paddedSize } from './tar-format.ts';

export type TarType = 'file' | 'dir' | 'symlink' | 'hardlink' | 'device';

export interface TarEntry {
  /** As the archive has it; what it means is for the receiver to check. */
  name: string;
  type: TarType;
  size: number;
  mode: number;
  link: string;
}

/** What only rewriting an archive needs. */
export interface RawHeader {
  /** Valid during the call. */
  block: Buffer;
  /** Every pax record that belongs to the entry. */
  records: ReadonlyMap<string, Buffer>;
}

export interface TarReceiver {
  entry(entry: TarEntry, raw: RawHeader): void;
  data(piece: Buffer): void;
  entryEnd(): void;
}

/** Longest pax or GNU name header. Names are at most 4096 bytes; the rest is extended attributes we do not use. */
const MAX_META_BYTES = 256 * 1024;

const TYPES: Record<string, TarType> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'device',
  '4': 'device',
  '6': 'device',
  '5': 'dir',
};

export function invalidArchive(what: string): KilnError {
  return new KilnError('INVALID_ARCHIVE', `${what}. Nothing more was unpacked; make the archive again.`);
}

export class TarReader {
  readonly #to: TarReceiver;
  readonly #header = Buffer.alloc(BLOCK);
  #header_used = 0;
  #body_left = 0;
  #padding_left = 0;
  /** Set while the body is a pax or GNU name header. */
  #meta: { type: string; parts: Buffer[] } | null = null;
  #pax = new Map<string, string>();
  #records = new Map<string, Buffer>();
  #ended = false;

  constructor(to: TarReceiver) {
    this.#to = to;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.#ended) {
      if (this.#body_left > 0) {
        const piece = chunk.subarray(at, at + this.#body_left);
        at += piece.length;
        this.#body_left -= piece.length;
        if (this.#meta) this.#meta.parts.push(Buffer.from(piece));
        else this.#to.data(piece);
        if (this.#body_left === 0) this.#bodyEnd();
      } else if (this.#padding_left > 0) {
        const skipped = Math.min(this.#padding_left, chunk.length - at);
        at += skipped;
        this.#padding_left -= skipped;
      } else {
        const taken = chunk.copy(this.#header, this.#header_used, at, at + BLOCK - this.#header_used);
        at += taken;
        this.#header_used += taken;
        if (this.#header_used === BLOCK) {
          this.#header_used = 0;
          this.#onHeader(this.#header);
        }
      }
    }
  }

  /** Call after the last piece. What follows the end marker is not looked at. */
  finish(): void {
    if (this.#ended) return;
    throw invalidArchive('The archive is cut short: its end marker is missing');
  }

  #onHeader(block: Buffer): void {
    if (block.every((byte) => byte === 0)) {
      this.#ended = true;
      return;
    }
    checkSum(block);
    const type = String.fromCharCode(block[156]!);
    const size = readNumber(block, 124, 12, 'a size');
    if ('xgLK'.includes(type)) {
      if (size > MAX_META_BYTES) throw invalidArchive(`The archive has a name header of ${size} bytes`);
      this.#meta = { type, parts: [] };
      this.#startBody(size);
      return;
    }
    this.#startEntry(block, type, size);
  }

  #startBody(size: number): void {
    this.#body_left = size;
    this.#padding_left = paddedSize(size) - size;
    if (size === 0) this.#bodyEnd();
  }

  #startEntry(block: Buffer, type: string, header_size: number): void {
    const pax = this.#pax;
    this.#pax = new Map();
    const records = this.#records;
    this.#records = new Map();
    const name = pax.get('path') ?? headerName(block);
    const kind = TYPES[type];
    const sparse = [...pax.keys()].some((key) => key.startsWith('GNU.sparse.'));
    if (!kind || sparse)
      throw invalidArchive(`The archive entry ${quote(name)} is of a kind that is not supported`);
    const pax_size = pax.get('size');
    if (pax_size !== undefined && !/^\d{1,15}$/.test(pax_size)) {
      throw invalidArchive(`The archive entry ${quote(name)} has no valid size`);
    }
    const size = pax_size === undefined ? header_size : Number(pax_size);
    const is_old_dir = kind === 'file' && name.endsWith('/');
    // Only files have a body; writers disagree on what a size means elsewhere, and nobody writes one.
    if (kind !== 'file' && size > 0)
      throw invalidArchive(`The archive entry ${quote(name)} has unexpected content`);
    const link = pax.get('linkpath') ?? text(block, 157, 100);
    const mode = readNumber(block, 100, 8, 'a mode');
    this.#to.entry({ name, type: is_old_dir ? 'dir' : kind, size, mode, link }, { block, records });
    this.#startBody(size);
  }

  #bodyEnd(): void {
    const meta = this.#meta;
    if (!meta) {
      this.#to.entryEnd();
      return;
    }
    this.#meta = null;
    const body = Buffer.concat(meta.parts);
    if (meta.type === 'x') readPax(body, this.#pax, this.#records);
    else if (meta.type === 'L') this.#pax.set('path', untilNul(body));
    else if (meta.type === 'K') this.#pax.set('linkpath', untilNul(body));
    // 'g': comments and defaults for all entries (git archive writes one); nothing in it that we would honour.
  }
}

function checkSum(block: Buffer): void {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : block[i]!;
  const want = Number.parseInt(text(block, 148, 8).trim(), 8);
  if (sum !== want) throw invalidArchive('This is not a tar archive, or it is damaged (header checksum)');
}

/** Octal text, or GNU's base 256 for numbers that do not fit. */
export function readNumber(block: Buffer, at: number, length: number, what: string): number {
  let value: number;
  if (block[at]! & 0x80) {
    value = block[at]! & 0x7f;
    for (let i = at + 1; i < at + length; i++) value = value * 256 + block[i]!;
  } else {
    const digits = text(block, at, length).trim();
    if (!/^[0-7]*$/.test(digits)) value = Number.NaN;
    else value = digits === '' ? 0 : Number.parseInt(digits, 8);
  }
  if (!Number.isSafeInteger(value) || value < 0)
    throw invalidArchive(`The archive has an entry without ${what}`);
  return value;
}

function headerName(block: Buffer): string {
  const name = text(block, 0, 100);
  const is_ustar = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = is_ustar ? text(block, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function text(block: Buffer, at: number, length: number): string {
  return untilNul(block.subarray(at, at + length));
}

function untilNul(bytes: Buffer): string {
  const nul = bytes.indexOf(0);
  const used = nul < 0 ? bytes : bytes.subarray(0, nul);
  if (!isUtf8(used)) throw invalidArchive('The archive has a name that is not valid UTF-8');
  return used.toString('utf8');
}

function readPax(body: Buffer, into: Map<string, string>, records: Map<string, Buffer>): void {
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(0x20, at);
    const digits = space < 0 ? '' : body.toString('latin1', at, space);
    const length = /^\d{1,7}$/.test(digits) ? Number(digits) : 0;
    const record = body.subarray(space + 1, at + length);
    const equals = record.indexOf(0x3d);
    if (length <= digits.length + 1 || at + length > body.length || equals < 1 || record.at(-1) !== 0x0a) {
      throw invalidArchive('The archive has a damaged pax header');
    }
    const key = record.toString('latin1', 0, equals);
    const value = record.subarray(equals + 1, -1);
    records.set(key, value);
    if (['path', 'linkpath', 'size'].includes(key) || key.startsWith('GNU.sparse.')) {
      if (!isUtf8(value)) throw invalidArchive('The archive has a name that is not valid UTF-8');
      into.set(key, value.toString('utf8'));
    }
    at += length;
  }
}

/** A name for an error message: bounded, without control characters. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

/**
 * Tar entries as image layers have them: with owners, times, whole modes and extended attributes, unlike Kiln's own
 * canonical tar (source/tar-format.ts). Read by the same strict reader; written in one form, so that equal entries
 * give equal bytes.
 */
import type { Readable } from 'node:stream';
import { decompressed } from '../../source/extract.ts';
import { BLOCK, END_BYTES, paddedSize } from '../../source/tar-format.ts';
import {
  invalidArchive,
  quote,
  type RawHeader,
  readNumber,
  type TarEntry,
  TarReader,
  type TarReceiver,
} from '../../source/tar-reader.ts';

export interface LayerEntry extends TarEntry {
  /** Permissions with setuid, setgid and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  /** Whole seconds since 1970. */
  mtime_s: number;
  xattrs: ReadonlyMap<string, Buffer>;
  /** Of devices and FIFOs; the type is the tar's: 3 character, 4 block, 6 FIFO. */
  device: { type: string; major: number; minor: number } | null;
}

const XATTR = 'SCHILY.xattr.';
const MAX_OCTAL = { size: 0o77777777777, id: 0o7777777, mtime: 0o77777777777 };
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

export function layerEntry(entry: TarEntry, { block, records }: RawHeader): LayerEntry {
  const number = (key: string, at: number): number => {
    const record = records.get(key)?.toString('latin1');
    if (record === undefined) return readNumber(block, at, 8, `a valid ${key}`);
    if (!/^\d{1,10}$/.test(record))
      throw invalidArchive(`The archive entry ${quote(entry.name)} has no valid ${key}`);
    return Number(record);
  };
  const device = () => ({
    type: String.fromCharCode(block[156]!),
    major: Math.min(readNumber(block, 329, 8, 'a device number'), MAX_OCTAL.id),
    minor: Math.min(readNumber(block, 337, 8, 'a device number'), MAX_OCTAL.id),
  });
  return {
    ...entry,
    mode: entry.mode & 0o7777,
    uid: number('uid', 108),
    gid: number('gid', 116),
    mtime_s: mtimeOf(block, records),
    xattrs: xattrsOf(records),
    device: entry.type === 'device' ? device() : null,
  };
}

/** Times before 1970 or beyond 33 bits are nobody's; they become the nearest that can be written. */
function mtimeOf(block: Buffer, records: ReadonlyMap<string, Buffer>): number {
  const record = records.get('mtime')?.toString('latin1');
  if (record === undefined && block[136]! === 0xff) return 0; // base 256, negative
  const seconds = record === undefined ? readNumber(block, 136, 12, 'a time') : Math.floor(Number(record));
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), MAX_OCTAL.mtime) : 0;
}

function xattrsOf(records: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  let xattrs: Map<string, Buffer> | null = null;
  for (const [key, value] of records) {
    if (!key.startsWith(XATTR)) continue;
    xattrs ??= new Map();
    xattrs.set(key.slice(XATTR.length), value);
  }
  return xattrs ?? NO_XATTRS;
}

const TYPES = { file: '0', hardlink: '1', symlink: '2', dir: '5' } as const;
// biome-ignore lint/suspicious/noControlCharactersInRegex: the very question is whether a name is plain ASCII
const SHORT_ASCII = /^[\x01-\x7f]{0,100}$/;

/** The header blocks of an entry; a pax header comes before what ustar cannot say. */
export function encodeLayerEntry(entry: LayerEntry): Buffer {
  const name = entry.type === 'dir' && !entry.name.endsWith('/') ? `${entry.name}/` : entry.name;
  const records: Buffer[] = [];
  const fit = (key: string, value: string): string => {
    if (SHORT_ASCII.test(value)) return value;
    records.push(paxRecord(key, Buffer.from(value)));
    return value.replace(/[^\x20-\x7e]/g, '_').slice(0, 100);
  };
  const number = (key: string, value: number, max: number): number => {
    if (value <= max) return value;
    records.push(paxRecord(key, Buffer.from(String(value))));
    return 0;
  };
  const type = entry.device?.type ?? TYPES[entry.type as keyof typeof TYPES];
  const fields: Fields = {
    type,
    name: fit('path', name),
    link: fit('linkpath', entry.link),
    mode: entry.mode,
    uid: number('uid', entry.uid, MAX_OCTAL.id),
    gid: number('gid', entry.gid, MAX_OCTAL.id),
    size: number('size', entry.size, MAX_OCTAL.size),
    mtime_s: entry.mtime_s,
    major: entry.device?.major ?? 0,
    minor: entry.device?.minor ?? 0,
  };
  for (const key of [...entry.xattrs.keys()].sort())
    records.push(paxRecord(XATTR + key, entry.xattrs.get(key)!));
  if (records.length === 0) return block(fields);
  const body = Buffer.concat(records);
  const pax = { ...fields, type: 'x', name: 'PaxHeader', link: '', mode: 0o644, uid: 0, gid: 0, mtime_s: 0 };
  return Buffer.concat([
    block({ ...pax, size: body.length, major: 0, minor: 0 }),
    body,
    Buffer.alloc(paddedSize(body.length) - body.length),
    block(fields),
  ]);
}

interface Fields {
  type: string;
  name: string;
  link: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime_s: number;
  major: number;
  minor: number;
}

function block(fields: Fields): Buffer {
  const out = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number) =>
    out.write(value.toString(8).padStart(digits, '0'), at, 'latin1');
  out.write(fields.name, 0, 'latin1');
  octal(fields.mode, 100, 7);
  octal(fields.uid, 108, 7);
  octal(fields.gid, 116, 7);
  octal(fields.size, 124, 11);
  octal(fields.mtime_s, 136, 11);
  out.write('        ', 148, 'latin1');
  out.write(fields.type, 156, 'latin1');
  out.write(fields.link, 157, 'latin1');
  out.write('ustar\x0000', 257, 'latin1');
  octal(fields.major, 329, 7);
  octal(fields.minor, 337, 7);
  let sum = 0;
  for (const byte of out) sum += byte;
  out.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return out;
}

function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.byteLength(` ${key}=\n`) + value.length;
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from('\n')]);
}

export const PADDING = Buffer.alloc(BLOCK);
export const TAR_END = Buffer.alloc(END_BYTES);

/** Reads a layer, compressed or not; what the receiver puts into `out` is passed on as it comes. */
export async function* throughTar(
  layer: Readable,
  receiver: TarReceiver,
  o: { out: Buffer[]; max_bytes: number; on_chunk?: (chunk: Buffer) => unknown },
): AsyncGenerator<Buffer> {
  const reader = new TarReader(receiver);
  let seen = 0;
  try {
    for await (const chunk of decompressed(layer)) {
      seen += chunk.length;
      if (seen > o.max_bytes) throw invalidArchive(`A layer holds more than ${o.max_bytes} bytes`);
      o.on_chunk?.(chunk);
      reader.push(chunk);
      if (o.out.length > 0) yield Buffer.concat(o.out.splice(0)); // one piece: an entry may be a few bytes
    }
    reader.finish();
  } finally {
    layer.destroy();
  }
}

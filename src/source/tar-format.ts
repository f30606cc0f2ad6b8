/**
 * The canonical tar: one tree, one digest (invariant I11). POSIX ustar headers with everything that differs between
 * machines fixed: owner 0, no owner names, time 0, mode 0755/0644 by the executable bit. A pax header comes before
 * an entry only when ustar cannot say it: names that are long or not ASCII, sizes of 8 GiB and more.
 */
export const BLOCK = 512;
/** Two zero blocks end an archive. */
export const END_BYTES = 2 * BLOCK;
const MAX_OCTAL_SIZE = 0o77777777777;

export type EntryKind = 'file' | 'executable' | 'dir' | 'symlink';

const MODE: Record<EntryKind, string> = {
  file: '0000644',
  executable: '0000755',
  dir: '0000755',
  symlink: '0000777',
};
const TYPE: Record<EntryKind | 'pax', string> = {
  file: '0',
  executable: '0',
  dir: '5',
  symlink: '2',
  pax: 'x',
};

interface Template {
  bytes: Buffer;
  /** Sum of its bytes with a blank checksum field, so that a header only adds what it writes itself. */
  sum: number;
}

function template(type: string, mode: string): Template {
  const bytes = Buffer.alloc(BLOCK);
  bytes.write(mode, 100, 'latin1');
  bytes.write('0000000', 108, 'latin1'); // uid
  bytes.write('0000000', 116, 'latin1'); // gid
  bytes.write('00000000000', 136, 'latin1'); // mtime
  bytes.write('        ', 148, 'latin1'); // checksum, counted as blanks
  bytes.write(type, 156, 'latin1');
  bytes.write('ustar\x0000', 257, 'latin1');
  bytes.write('0000000', 329, 'latin1'); // device numbers
  bytes.write('0000000', 337, 'latin1');
  let sum = 0;
  for (const byte of bytes) sum += byte;
  return { bytes, sum };
}

const TEMPLATES: Record<EntryKind | 'pax', Template> = {
  file: template(TYPE.file, MODE.file),
  executable: template(TYPE.executable, MODE.executable),
  dir: template(TYPE.dir, MODE.dir),
  symlink: template(TYPE.symlink, MODE.symlink),
  pax: template(TYPE.pax, MODE.file),
};

// biome-ignore lint/suspicious/noControlCharactersInRegex: the very question is whether a name is plain ASCII
const ASCII = /^[\x01-\x7f]*$/;

/** Bytes an entry of `size` takes without its headers: rounded up to whole blocks. */
export function paddedSize(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}

/**
 * The header block(s) of one entry. `name` has '/' between segments and no trailing one; `link` is the target of
 * a symlink. Usually one block; three or more when a pax header is needed.
 */
export function encodeHeader(kind: EntryKind, name: string, size: number, link = ''): Buffer {
  const full_name = kind === 'dir' ? `${name}/` : name;
  const place = ASCII.test(full_name) ? splitName(full_name) : null;
  const link_fits = link.length <= 100 && ASCII.test(link);
  if (place && link_fits && size <= MAX_OCTAL_SIZE) {
    const block = Buffer.allocUnsafeSlow(BLOCK);
    writeBlock(block, kind, place, size, link);
    return block;
  }
  const records = [
    place ? '' : paxRecord('path', full_name),
    link_fits ? '' : paxRecord('linkpath', link),
    size <= MAX_OCTAL_SIZE ? '' : paxRecord('size', String(size)),
  ];
  const body = Buffer.from(records.join(''), 'utf8');
  const out = Buffer.alloc(BLOCK + paddedSize(body.length) + BLOCK);
  writeBlock(out.subarray(0, BLOCK), 'pax', ['', 'PaxHeader'], body.length, '');
  body.copy(out, BLOCK);
  const short = place ?? ['', plainName(full_name)];
  const short_size = size <= MAX_OCTAL_SIZE ? size : 0;
  writeBlock(out.subarray(out.length - BLOCK), kind, short, short_size, link_fits ? link : plainName(link));
  return out;
}

/** What a reader without pax would see: printable ASCII, at most 100 characters. */
function plainName(name: string): string {
  return name.replace(/[^\x20-\x7e]/g, '_').slice(0, 100);
}

/** ustar's prefix (155) and name (100), split at a slash; null when it does not fit. */
function splitName(name: string): [string, string] | null {
  if (name.length <= 100) return ['', name];
  if (name.length > 256) return null;
  const slash = name.indexOf('/', name.length - 101);
  return slash > 0 && slash <= 155 && slash < name.length - 1
    ? [name.slice(0, slash), name.slice(slash + 1)]
    : null;
}

function writeBlock(
  to: Buffer,
  kind: EntryKind | 'pax',
  [prefix, name]: [string, string],
  size: number,
  link: string,
): void {
  const { bytes, sum: base } = TEMPLATES[kind];
  bytes.copy(to);
  let sum = base + put(to, name, 0) + put(to, size.toString(8).padStart(11, '0'), 124);
  if (link) sum += put(to, link, 157);
  if (prefix) sum += put(to, prefix, 345);
  to.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

function put(to: Buffer, text: string, at: number): number {
  let sum = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    to[at + i] = code;
    sum += code;
  }
  return sum;
}

/** `<length> <key>=<value>\n`, the length counting itself. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
}

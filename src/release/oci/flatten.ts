/**
 * The layers of an image as one tar. Two passes over each layer: the first finds out which entries are still there in
 * the end (layer-tree.ts), the second copies their contents. So nothing but names and modes is held in memory, and
 * nothing is unpacked on the host. Folders and links come first, files in the order of the layers, hard links last.
 *
 * Or only what the upper layers make different, for a file system that is laid over one with the lower layers. What is
 * gone then has an entry of its own, a character device 0:0, which is how overlayfs says it. A folder that hides
 * all that was in it (opaque) needs no mark: everything that was in it is known, and is gone by name.
 */
import { createHash, type Hash } from 'node:crypto';
import { Readable } from 'node:stream';
import { paddedSize } from '../../source/tar-format.ts';
import { encodeLayerEntry, type LayerEntry, layerEntry, PADDING, TAR_END, throughTar } from './layer-tar.ts';
import { copyOf, type Inode, LayerTree, type Node, type TreeLimits } from './layer-tree.ts';
import { invalidImage } from './manifest.ts';

export interface Flattening {
  layers: {
    /** Digest of the uncompressed tar, which is checked; null when nobody said. */
    diff_id: string | null;
    /** Called twice. */
    open(): Promise<Readable>;
    /** What `layerHeaders` gave of it: spares the first reading, and for layers below as a rule the second. */
    headers?(): Promise<Readable>;
  }[];
  /** Of the layers, the lowest so many are in another file system, below the one that is made of this tar. Default 0. */
  below?: number;
  limits?: Partial<TreeLimits>;
}

const LIMITS: TreeLimits = {
  max_entries: 1_000_000,
  max_names_bytes: 256 * 1024 ** 2,
  max_bytes: 64 * 1024 ** 3,
};
/** Fails with KilnError INVALID_ARCHIVE for layers that cannot be laid over each other. */
export function flatten(of: Flattening): Readable {
  return Readable.from(flattened(of), { objectMode: false, highWaterMark: 1024 * 1024 });
}

async function* flattened(of: Flattening): AsyncGenerator<Buffer> {
  const limits = { ...LIMITS, ...of.limits };
  const tree = new LayerTree(limits);
  let left = limits.max_bytes;
  let below: Node | null = null;
  for (const [i, layer] of of.layers.entries()) {
    if (i > 0 && i === of.below) below = copyOf(tree.root);
    left -= await readTree(tree, layer, left);
  }
  const { heads, files, links } = plan(tree.root, below);
  yield* encoded(heads);
  for (const [i, layer] of of.layers.entries()) {
    const wanted = files.get(i);
    if (wanted) yield* contents(await layer.open(), wanted, limits.max_bytes);
  }
  yield* encoded(links);
  yield TAR_END;
}

const BATCH = 1000;

function* encoded(entries: LayerEntry[]): Generator<Buffer> {
  for (let i = 0; i < entries.length; i += BATCH)
    yield Buffer.concat(entries.slice(i, i + BATCH).map(encodeLayerEntry));
}

/** Answers the size of what was read: the uncompressed layer, or its headers. */
async function readTree(
  tree: LayerTree,
  layer: Flattening['layers'][number],
  max_bytes: number,
): Promise<number> {
  const hash = createHash('sha256');
  let seen = 0;
  tree.nextLayer();
  const receiver = {
    entry: (...[entry, raw]: Parameters<typeof layerEntry>) => tree.add(layerEntry(entry, raw)),
    data: () => {},
    entryEnd: () => {},
  };
  const on_chunk = (chunk: Buffer) => {
    seen += chunk.length;
    hash.update(chunk);
  };
  const read = layer.headers ? await layer.headers() : await layer.open();
  for await (const _ of throughTar(read, receiver, { out: [], max_bytes, on_chunk }));
  if (!layer.headers) checkDiffId(hash, layer.diff_id);
  return seen;
}

function checkDiffId(hash: Hash, said: string | null): void {
  const diff_id = `sha256:${hash.digest('hex')}`;
  if (said !== null && said !== diff_id)
    throw invalidImage(`A layer unpacks to ${diff_id}, but the configuration says ${said}`);
}

/** A layer without its contents, as a tar of its own: all that is needed to tell what other layers make of it. */
export async function* layerHeaders(layer: Readable, diff_id: string): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  const out: Buffer[] = [];
  const receiver = {
    entry: (...[entry, raw]: Parameters<typeof layerEntry>) => {
      out.push(encodeLayerEntry({ ...layerEntry(entry, raw), size: 0 }));
    },
    data: () => {},
    entryEnd: () => {},
  };
  const { max_bytes } = LIMITS;
  yield* throughTar(layer, receiver, { out, max_bytes, on_chunk: (chunk) => hash.update(chunk) });
  checkDiffId(hash, diff_id);
  yield TAR_END;
}

interface Plan {
  /** Folders, symbolic links, FIFOs, and what is gone; parents first. */
  heads: LayerEntry[];
  /** Contents to copy: by layer, then by number of the entry. */
  files: Map<number, Map<number, LayerEntry>>;
  /** Second and further names of files. */
  links: LayerEntry[];
}

/** Everything, or what is different from `below`. A folder on the way to a change is named, too: it is laid over the other. */
function plan(root: Node, below: Node | null): Plan {
  const out: Plan = { heads: [], files: new Map(), links: [] };
  const named = new Map<Inode, string>();
  let planned = 0;
  const head = (entry: LayerEntry) => {
    out.heads.push(entry);
    planned++;
  };
  const file = (inode: Inode, entry: LayerEntry) => {
    planned++;
    const first = named.get(inode);
    if (first !== undefined) {
      out.links.push({ ...entry, type: 'hardlink', size: 0, link: first });
      return;
    }
    named.set(inode, entry.name);
    if (!out.files.has(inode.layer)) out.files.set(inode.layer, new Map());
    out.files.get(inode.layer)!.set(inode.ordinal, entry);
  };
  const visit = (node: Node, path: string, under: Node | undefined) => {
    const { inode, children } = node;
    const entry = { ...inode.entry, name: path === '' ? './' : path };
    const is_new = inode !== under?.inode;
    if (!children) {
      if (is_new && entry.type === 'file') file(inode, entry);
      else if (is_new) head(entry);
      return;
    }
    head(entry);
    const before = planned;
    const hidden = under?.children;
    for (const name of namesOf(children, hidden)) {
      const full = path === '' ? name : `${path}/${name}`;
      const child = children.get(name);
      if (child) visit(child, full, hidden?.get(name));
      else head({ ...GONE, name: full });
    }
    if (is_new || planned > before || path === '') return;
    out.heads.pop();
    planned--;
  };
  visit(root, '', below ?? undefined);
  return out;
}

const GONE: LayerEntry = {
  ...{ name: '', type: 'device', size: 0, link: '', mode: 0, uid: 0, gid: 0, mtime_s: 0, xattrs: new Map() },
  device: { type: '3', major: 0, minor: 0 },
};

function namesOf(children: ReadonlyMap<string, Node>, hidden: ReadonlyMap<string, Node> | null | undefined) {
  return [...new Set([...children.keys(), ...(hidden?.keys() ?? [])])].sort();
}

async function* contents(
  layer: Readable,
  wanted: ReadonlyMap<number, LayerEntry>,
  max_bytes: number,
): AsyncGenerator<Buffer> {
  const out: Buffer[] = [];
  let ordinal = 0;
  let copying: LayerEntry | undefined;
  const receiver = {
    entry: ({ size }: { size: number }) => {
      const found = wanted.get(ordinal++);
      copying = found && { ...found, size }; // headers do not say it
      if (copying) out.push(encodeLayerEntry(copying));
    },
    data: (piece: Buffer) => {
      if (copying) out.push(piece);
    },
    entryEnd: () => {
      if (copying) out.push(PADDING.subarray(0, paddedSize(copying.size) - copying.size));
    },
  };
  yield* throughTar(layer, receiver, { out, max_bytes });
}

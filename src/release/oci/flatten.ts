/**
 * The layers of an image as one tar. Two passes over each layer: the first finds out which entries are still there in
 * the end (layer-tree.ts), the second copies their contents. So nothing but names and modes is held in memory, and
 * nothing is unpacked on the host. Folders and links come first, files in the order of the layers, hard links last.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { paddedSize } from '../../source/tar-format.ts';
import { encodeLayerEntry, type LayerEntry, layerEntry, PADDING, TAR_END, throughTar } from './layer-tar.ts';
import { type Inode, LayerTree, type Node, type TreeLimits } from './layer-tree.ts';
import { invalidImage } from './manifest.ts';

export interface Flattening {
  layers: {
    /** Digest of the uncompressed tar, which is checked; null when nobody said. */
    diff_id: string | null;
    /** Called twice. */
    open(): Promise<Readable>;
  }[];
  limits?: Partial<TreeLimits>;
}

const LIMITS: TreeLimits = { max_entries: 1_000_000, max_bytes: 64 * 1024 ** 3 };
/** Others belong to the machine the image was made on (security.selinux, trusted.overlay.…). */
const KEPT_XATTR = /^(user\.|security\.capability$)/;

/** Fails with KilnError INVALID_ARCHIVE for layers that cannot be laid over each other. */
export function flatten(of: Flattening): Readable {
  return Readable.from(flattened(of), { objectMode: false, highWaterMark: 1024 * 1024 });
}

async function* flattened(of: Flattening): AsyncGenerator<Buffer> {
  const limits = { ...LIMITS, ...of.limits };
  const tree = new LayerTree(limits);
  let left = limits.max_bytes;
  for (const layer of of.layers) left -= await readTree(tree, layer, left);
  const { heads, files, links } = plan(tree.root);
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

/** Answers the size of the uncompressed layer. */
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
  for await (const _ of throughTar(await layer.open(), receiver, { out: [], max_bytes, on_chunk }));
  const diff_id = `sha256:${hash.digest('hex')}`;
  if (layer.diff_id !== null && layer.diff_id !== diff_id)
    throw invalidImage(`A layer unpacks to ${diff_id}, but the configuration says ${layer.diff_id}`);
  return seen;
}

interface Plan {
  /** Folders, symbolic links, FIFOs; parents first. */
  heads: LayerEntry[];
  /** Contents to copy: by layer, then by number of the entry. */
  files: Map<number, Map<number, LayerEntry>>;
  /** Second and further names of files. */
  links: LayerEntry[];
}

function plan(root: Node): Plan {
  const out: Plan = { heads: [], files: new Map(), links: [] };
  const named = new Map<Inode, string>();
  const visit = (node: Node, path: string) => {
    const { inode } = node;
    const entry = { ...inode.entry, name: path, xattrs: keptXattrs(inode.entry) };
    const first = named.get(inode);
    if (entry.type !== 'file') out.heads.push(path === '' ? { ...entry, name: './' } : entry);
    else if (first !== undefined) out.links.push({ ...entry, type: 'hardlink', size: 0, link: first });
    else {
      named.set(inode, path);
      if (!out.files.has(inode.layer)) out.files.set(inode.layer, new Map());
      out.files.get(inode.layer)!.set(inode.ordinal, entry);
    }
    for (const name of [...(node.children?.keys() ?? [])].sort())
      visit(node.children!.get(name)!, path === '' ? name : `${path}/${name}`);
  };
  visit(root, '');
  return out;
}

function keptXattrs({ xattrs }: LayerEntry): LayerEntry['xattrs'] {
  if (xattrs.size === 0) return xattrs;
  return new Map([...xattrs].filter(([key]) => KEPT_XATTR.test(key)));
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
    entry: () => {
      copying = wanted.get(ordinal++);
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

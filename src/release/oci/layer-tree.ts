/**
 * The file system that layers laid over each other give, as a tree in memory, without contents. Layers may be hostile:
 *
 * - every name is kept inside the root: `..` is refused, a leading `/` dropped, and a folder on the way that is a link
 *   is followed as the container would see it, never further up than the root (lib → usr/lib of a lower layer is usual);
 * - whiteouts hide what lower layers have, not what their own layer has, in whatever order the entries come;
 * - devices are left out: no instance needs those of an image, and a device node is a way to the host's disks.
 */
import { invalidArchive, quote } from '../../source/tar-reader.ts';
import type { LayerEntry } from './layer-tar.ts';

/** One content: several names when hard-linked. */
export interface Inode {
  entry: LayerEntry;
  /** Where the content is: the nth entry of a layer. */
  layer: number;
  ordinal: number;
}

export interface Node {
  inode: Inode;
  /** The topmost layer that named it. */
  layer: number;
  /** Only folders have children. */
  children: Map<string, Node> | null;
}

/** The tree as it is now: what later layers change are other nodes, but contents that stay are the same inodes. */
export function copyOf(node: Node): Node {
  const children = node.children && new Map([...node.children].map(([name, of]) => [name, copyOf(of)]));
  return { ...node, children };
}

export interface TreeLimits {
  max_entries: number;
  /** Names, link targets and attributes, all of which are held in memory. */
  max_names_bytes: number;
  /** Sum of the uncompressed layers. */
  max_bytes: number;
}

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** Bookkeeping of old AUFS; no file of the image. */
const AUFS = '.wh..wh.';
const MAX_LINKS = 40;
/** Links on the way could make a path longer than any name in the archive. */
const MAX_DEPTH = 2048;
/** Others belong to the machine the image was made on (security.selinux, trusted.overlay.…). */
const KEPT_XATTR = /^(user\.|security\.capability$)/;
const MAX_PATH_BYTES = 4096;
const MAX_NAME_BYTES = 255;

export class LayerTree {
  readonly root: Node = folder(0);
  /** Devices that were left out. */
  skipped: string[] = [];
  readonly #limits: Omit<TreeLimits, 'max_bytes'>;
  #layer = -1;
  #ordinal = 0;
  #made = 0;
  #names_bytes = 0;

  constructor(limits: Omit<TreeLimits, 'max_bytes'>) {
    this.#limits = limits;
  }

  /** Entries that follow are of the next layer up. */
  nextLayer(): void {
    this.#layer++;
    this.#ordinal = 0;
  }

  add(full: LayerEntry): void {
    const entry = { ...full, xattrs: keptXattrs(full) };
    this.#remember(entry);
    const inode: Inode = { entry, layer: this.#layer, ordinal: this.#ordinal++ };
    const path = segmentsOf(entry.name, entry.name);
    const name = path.pop();
    if (name === undefined) {
      if (entry.type === 'dir') Object.assign(this.root, { inode, layer: this.#layer });
      return;
    }
    if (path.some((folder) => folder.startsWith(AUFS))) return;
    if (name.startsWith(WHITEOUT)) {
      this.#whiteout(path, name, entry.name);
      return;
    }
    if (entry.device && entry.device.type !== '6') {
      if (this.skipped.length < 1000) this.skipped.push(entry.name);
      return;
    }
    const parent = this.#enter(path, entry.name, true)!;
    if (entry.type === 'hardlink') this.#hardLink(parent, name, entry);
    else this.#place(parent, name, inode);
  }

  #place(parent: Node, name: string, inode: Inode): void {
    const there = parent.children!.get(name);
    const is_dir = inode.entry.type === 'dir';
    if (!there) this.#count();
    if (is_dir && there?.children) {
      there.inode = inode;
      there.layer = this.#layer;
      return;
    }
    parent.children!.set(name, { inode, layer: this.#layer, children: is_dir ? new Map() : null });
  }

  #hardLink(parent: Node, name: string, entry: LayerEntry): void {
    const path = segmentsOf(entry.link, entry.name);
    const target_name = path.pop();
    const folder_of_target = target_name === undefined ? null : this.#enter(path, entry.name, false);
    const target = folder_of_target?.children?.get(target_name!);
    if (!target && this.skipped.includes(entry.link)) return;
    if (!target || target.children)
      throw invalidArchive(
        `The layer entry ${quote(entry.name)} is a hard link to ${quote(entry.link)}, which is no file`,
      );
    this.#place(parent, name, target.inode);
  }

  #whiteout(path: string[], name: string, full_name: string): void {
    const parent = this.#enter(path, full_name, false);
    if (!parent) return;
    if (name === OPAQUE) {
      for (const child of parent.children!.keys()) this.#hideLower(parent, child);
      return;
    }
    if (name.startsWith(AUFS)) return;
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === '' || hidden === '.' || hidden === '..')
      throw invalidArchive(`The layer entry ${quote(full_name)} hides nothing that could be`);
    this.#hideLower(parent, hidden);
  }

  /** Removes what lower layers put there; what this layer put there, and the folders it is in, stay. */
  #hideLower(parent: Node, name: string): void {
    const node = parent.children!.get(name);
    if (!node) return;
    for (const child of node.children?.keys() ?? []) this.#hideLower(node, child);
    if (node.layer < this.#layer && !node.children?.size) parent.children!.delete(name);
  }

  /** The folder at the path, links resolved inside the root. Null when it is not there and is not to be made. */
  #enter(path: string[], entry_name: string, make: boolean): Node | null {
    const stack = [this.root];
    const todo = path.toReversed();
    let links = 0;
    while (todo.length > 0) {
      const name = todo.pop()!;
      if (name === '..') {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const at = stack.at(-1)!;
      let next = at.children!.get(name);
      if (!next) {
        if (!make) return null;
        this.#count();
        next = folder(this.#layer);
        at.children!.set(name, next);
      }
      if (next.inode.entry.type === 'symlink') {
        const { link } = next.inode.entry;
        if (++links > MAX_LINKS)
          throw invalidArchive(`The layer entry ${quote(entry_name)} is in a folder of too many links`);
        if (link.startsWith('/')) stack.length = 1;
        todo.push(
          ...link
            .split('/')
            .filter((part) => part !== '' && part !== '.')
            .reverse(),
        );
      } else if (next.children) {
        stack.push(next);
        if (stack.length > MAX_DEPTH)
          throw invalidArchive(`The layer entry ${quote(entry_name)} is in too many folders`);
      } else {
        if (!make) return null;
        throw invalidArchive(`The layer entry ${quote(entry_name)} is in something that is no folder`);
      }
    }
    return stack.at(-1)!;
  }

  #remember({ name, link, xattrs }: LayerEntry): void {
    const { max_names_bytes } = this.#limits;
    this.#names_bytes += name.length + link.length;
    for (const [key, value] of xattrs) this.#names_bytes += key.length + value.length;
    if (this.#names_bytes > max_names_bytes)
      throw invalidArchive(`The names and attributes in the image have more than ${max_names_bytes} bytes`);
  }

  #count(): void {
    const { max_entries } = this.#limits;
    if (++this.#made > max_entries)
      throw invalidArchive(`The image has more than ${max_entries} files and folders`);
  }
}

function keptXattrs({ xattrs }: LayerEntry): LayerEntry['xattrs'] {
  if (xattrs.size === 0) return xattrs;
  const kept = [...xattrs].filter(([key]) => KEPT_XATTR.test(key));
  return new Map(kept.map(([key, value]) => [key, Buffer.from(value)])); // a copy: the header it is in may be large
}

function segmentsOf(name: string, entry_name: string): string[] {
  if (Buffer.byteLength(name) > MAX_PATH_BYTES || name.includes('\0'))
    throw invalidArchive(`The layer entry ${quote(entry_name)} has a name that cannot be`);
  const segments = name.split('/').filter((part) => part !== '' && part !== '.');
  for (const segment of segments) {
    if (segment === '..') throw invalidArchive(`The layer entry ${quote(entry_name)} leaves the image`);
    if (Buffer.byteLength(segment) > MAX_NAME_BYTES)
      throw invalidArchive(`The layer entry ${quote(entry_name)} has a name that is too long`);
  }
  return segments;
}

/** One that no layer has described. */
function folder(layer: number): Node {
  const entry: LayerEntry = {
    name: '',
    type: 'dir',
    size: 0,
    mode: 0o755,
    link: '',
    uid: 0,
    gid: 0,
    mtime_s: 0,
    xattrs: new Map(),
    device: null,
  };
  return { inode: { entry, layer, ordinal: -1 }, layer, children: new Map() };
}

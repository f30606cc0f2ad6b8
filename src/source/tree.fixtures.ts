/** Trees for the tests of this room: written from a plain object, and read back as one. */
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A file's content, a folder, a link, or an executable. */
export type Node = string | Buffer | { dir: true } | { link: string } | { run: string };
export type Tree = Record<string, Node>;

/** A folder for one test; `await using` removes it. */
export async function scratch(): Promise<{ dir: string; [Symbol.asyncDispose](): Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-source-'));
  return { dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }) };
}

/** Makes the tree's entries in the order given. */
export async function plant(root: string, tree: Tree): Promise<string> {
  await mkdir(root, { recursive: true });
  for (const [path, node] of Object.entries(tree)) {
    const at = join(root, path);
    await mkdir(dirname(at), { recursive: true });
    if (typeof node === 'string' || Buffer.isBuffer(node)) await writeFile(at, node);
    else if ('dir' in node) await mkdir(at, { recursive: true });
    else if ('link' in node) await symlink(node.link, at);
    else {
      await writeFile(at, node.run);
      await chmod(at, 0o755);
    }
  }
  return root;
}

/** One line per entry, sorted: what a tree is, as far as a canonical tar keeps it. */
export async function describeTree(root: string): Promise<string[]> {
  const lines: string[] = [];
  for (const path of await readdir(root, { recursive: true })) {
    const at = join(root, path);
    const stat = await lstat(at);
    const name = JSON.stringify(path);
    if (stat.isSymbolicLink()) lines.push(`${name} -> ${JSON.stringify(await readlink(at))}`);
    else if (stat.isDirectory()) lines.push(`${name} folder`);
    else lines.push(`${name} ${(stat.mode & 0o7777).toString(8)} ${(await readFile(at)).toString('base64')}`);
  }
  return lines.sort();
}

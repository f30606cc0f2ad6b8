import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { RegistrySettings } from '../registry.ts';
import type { JobFile } from './guest/job.ts';
import type { Pack, Unpack } from './options.ts';

const MAX_FILES = 1_000_000;
const MAX_NAMED_FILE_BYTES = 4 * 1024 * 1024;

/** The input drive's content: the job, then the workspace. Resolves to the tar's size. */
export async function packInput(o: {
  pack: Pack;
  workspace_dir: string;
  files: JobFile[];
  out_path: string;
}): Promise<number> {
  const { size_bytes } = await o.pack({
    root: o.workspace_dir,
    prefix: 'workspace/',
    extra: o.files,
    out_path: o.out_path,
    compress: 'none',
    max_bytes: Number.MAX_SAFE_INTEGER,
  });
  return size_bytes;
}

/**
 * Puts what the machine made in place of the workspace. The tar comes from a guest that may be lost, so it goes through
 * the extractor for hostile archives, into a folder beside; only when all of it is there the contents are exchanged.
 */
export async function takeOutput(o: {
  unpack: Unpack;
  output_path: string;
  bytes: number;
  max_bytes: number;
  /** Scratch for the exchange, on the file system of the workspace. */
  dir: string;
  workspace_dir: string;
}): Promise<void> {
  const fresh = join(o.dir, 'result');
  const old = join(o.dir, 'replaced');
  await mkdir(old);
  const input = createReadStream(o.output_path, { end: Math.max(0, o.bytes - 1), highWaterMark: 1 << 18 });
  await o.unpack({ input, into: fresh, limits: { max_bytes: o.max_bytes, max_files: MAX_FILES } });
  for (const name of await readdir(o.workspace_dir))
    await rename(join(o.workspace_dir, name), join(old, name));
  for (const name of await readdir(fresh)) await rename(join(fresh, name), join(o.workspace_dir, name));
}

/** The files that registry settings name (certificates), to be put at the same paths in the machine. Folders stay out. */
export async function namedFiles(settings: RegistrySettings): Promise<{ path: string; content: Buffer }[]> {
  const files: { path: string; content: Buffer }[] = [];
  for (const path of settings.paths) {
    const info = await stat(path).catch(() => null);
    if (info?.isFile() && info.size <= MAX_NAMED_FILE_BYTES)
      files.push({ path, content: await readFile(path) });
  }
  return files;
}

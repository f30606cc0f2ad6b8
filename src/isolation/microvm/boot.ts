import { createHash } from 'node:crypto';
import { access, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuilderImage } from './builder-image/image.ts';
import { type CpioEntry, file, makeCpio } from './builder-image/initramfs.ts';
import { guardProgram } from './guest/guard.ts';

/** The agent's files, where the guest sees them. */
const AGENT = { 'init.sh': 'init', 'steps.sh': 'steps.sh', 'run_command.sh': 'run_command.sh' } as const;

export interface BootFiles {
  kernel: string;
  initramfs: string;
}

/**
 * Kernel and whole initramfs of a builder image: its own part with the guest agent of this Kiln appended (the kernel
 * unpacks one archive after the other). Kept beside the image by digest, so that an upgrade of Kiln needs no new image.
 */
export async function bootFiles(image: BuilderImage, extra: readonly CpioEntry[] = []): Promise<BootFiles> {
  const entries = [...extra];
  for (const [name, path] of Object.entries(AGENT))
    entries.push(file(path, await readFile(join(import.meta.dirname, 'guest', name)), 0o755));
  entries.push(file('guard', guardProgram(), 0o755));
  const agent = makeCpio(entries);
  const digest = createHash('sha256').update(agent).digest('hex').slice(0, 16);
  const initramfs = join(image.dir, `initramfs-${digest}`);
  try {
    await access(initramfs);
  } catch {
    const unfinished = `${initramfs}.${process.pid}.${performance.now()}`;
    await writeFile(unfinished, Buffer.concat([await readFile(image.initramfs), agent]), { mode: 0o644 });
    await rename(unfinished, initramfs);
  }
  return { kernel: image.kernel, initramfs };
}

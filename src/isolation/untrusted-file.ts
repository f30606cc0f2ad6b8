import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

/** Linux has it on every architecture that Kiln runs on; Node names it nowhere. */
const O_PATH = 0o10000000;

/**
 * The first bytes of a file whose path untrusted code controls, null for everything that is no plain file. Reading a FIFO
 * would wait for ever, and to open a device is to use it: so the path is only pinned (O_PATH opens nothing) until it is
 * clear what it is. A link as the last part is not followed.
 */
export function readUntrustedFile(path: string, max_bytes: number): string | null {
  let pinned: number | null = null;
  let file: number | null = null;
  try {
    pinned = openSync(path, O_PATH | constants.O_NOFOLLOW);
    if (!fstatSync(pinned).isFile()) return null;
    file = openSync(`/proc/self/fd/${pinned}`, constants.O_RDONLY | constants.O_NONBLOCK);
    const bytes = Buffer.alloc(max_bytes);
    let length = 0;
    while (length < max_bytes) {
      const read = readSync(file, bytes, length, max_bytes - length, length);
      if (read === 0) break;
      length += read;
    }
    return bytes.toString('utf8', 0, length);
  } catch {
    return null;
  } finally {
    for (const fd of [pinned, file]) if (fd !== null) closeSync(fd);
  }
}

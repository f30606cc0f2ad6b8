import { closeSync, constants, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

/**
 * A Unix socket's path has at most 107 bytes, which a data folder easily exceeds. Through an open folder every
 * path is short.
 */
export interface ShortFolder {
  /** A path of `name` in the folder, good while the folder is open, for this process only. */
  path(name: string): string;
  close(): void;
}

export function openShortFolder(dir: string): ShortFolder {
  const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  let open = true;
  return {
    path: (name) => join('/proc/self/fd', String(fd), name),
    close() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

/** Connects to a socket in a folder; rejects when nobody listens there. */
export async function connectIn(dir: string, name: string): Promise<Socket> {
  const folder = openShortFolder(dir);
  try {
    return await new Promise((resolve, reject) => {
      const socket = connect(folder.path(name));
      socket.once('error', reject).once('connect', () => resolve(socket.off('error', reject)));
    });
  } finally {
    folder.close();
  }
}

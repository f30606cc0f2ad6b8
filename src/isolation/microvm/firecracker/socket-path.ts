import { closeSync, constants, openSync } from 'node:fs';

/**
 * A folder as seen by this process, for sockets in it. The kernel takes at most 107 bytes as the name of a Unix
 * socket, and folders of VMs lie deep in the data folder; through an open descriptor every one of them is short. It
 * also goes on to work when the folder is renamed (a warm VM becomes a build).
 */
export interface SocketDir {
  path(name: string): string;
  close(): void;
}

const PLAIN_NAME = /^[A-Za-z0-9._-]{1,64}$/;

export function openSocketDir(dir: string): SocketDir {
  const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  let open = true;
  return {
    path(name) {
      if (!PLAIN_NAME.test(name)) throw new Error(`${JSON.stringify(name)} is no name for a socket`);
      // A number that meanwhile belongs to another folder must not be used.
      if (!open) throw new Error(`the folder of socket ${name} was closed`);
      return `/proc/self/fd/${fd}/${name}`;
    },
    close() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

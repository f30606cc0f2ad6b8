import { readdirSync, readlinkSync } from 'node:fs';
import type { ListeningPort } from '../domain/failure.ts';
import { readProc } from './marks.ts';

/**
 * TCP ports that the processes of one machine listen on, wherever its network is. Instances share the host's, so
 * the kernel's list is narrowed to sockets that one of the processes holds open.
 */
export function listeningPorts(pids: readonly number[]): ListeningPort[] {
  const listening = new Map<string, ListeningPort>();
  for (const name of ['tcp', 'tcp6'])
    for (const [inode, port] of parseListening(readProc(`/proc/${pids[0]}/net/${name}`) ?? ''))
      listening.set(inode, port);
  const found = new Map<string, ListeningPort>();
  if (listening.size === 0) return [];
  for (const pid of pids)
    for (const inode of socketInodes(pid)) {
      const port = listening.get(inode);
      if (port !== undefined) found.set(`${port.address} ${port.port}`, port);
    }
  return sorted([...found.values()]);
}

/**
 * Whether one of these processes listens on a port of the host. Null where that cannot be told: no /proc, nobody listens
 * (any more), or a process whose files this user may not see.
 */
export function ownsPort(pids: readonly number[], port: number): boolean | null {
  const inodes = new Set<string>();
  for (const name of ['tcp', 'tcp6'])
    for (const [inode, one] of parseListening(readProc(`/proc/${pids[0]}/net/${name}`) ?? ''))
      if (one.port === port) inodes.add(inode);
  if (inodes.size === 0) return null;
  let hidden = false;
  for (const pid of pids) {
    const held = socketInodes(pid, () => {
      hidden = true;
    });
    if (held.some((inode) => inodes.has(inode))) return true;
  }
  return hidden ? null : false;
}

/** Docker's own name server inside a container. */
const DOCKER_DNS = '127.0.0.11';

/** TCP ports listened on in the network namespace of a process: all of a container's, which has one to itself. */
export function namespacePorts(pid: number): ListeningPort[] {
  const found = ['tcp', 'tcp6'].flatMap((file) => [
    ...parseListening(readProc(`/proc/${pid}/net/${file}`) ?? '').values(),
  ]);
  const distinct = new Map(found.map((one) => [`${one.address} ${one.port}`, one]));
  return sorted([...distinct.values()].filter((one) => one.address !== DOCKER_DNS));
}

function sorted(ports: ListeningPort[]): ListeningPort[] {
  return ports.sort((a, b) => a.port - b.port || a.address.localeCompare(b.address));
}

/** Rows of /proc/net/tcp{,6} in state LISTEN (0A), by socket inode. */
export function parseListening(text: string): Map<string, ListeningPort> {
  const ports = new Map<string, ListeningPort>();
  for (const line of text.split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    const [address, port] = (fields[1] ?? '').split(':');
    if (fields[3] !== '0A' || !address || !port || !fields[9]) continue;
    ports.set(fields[9], { address: readAddress(address), port: Number.parseInt(port, 16) });
  }
  return ports;
}

/** The kernel prints addresses as 32-bit words in the host's byte order (little-endian on all we support). */
export function readAddress(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  for (let at = 0; at + 4 <= bytes.length; at += 4) bytes.subarray(at, at + 4).reverse();
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.every((byte) => byte === 0)) return '::';
  if (bytes.subarray(0, 15).every((byte) => byte === 0) && bytes[15] === 1) return '::1';
  if (bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xffff)
    return bytes.subarray(12).join('.');
  return Array.from({ length: 8 }, (_, word) => bytes.readUInt16BE(word * 2).toString(16)).join(':');
}

function socketInodes(pid: number, on_hidden?: () => void): string[] {
  const inodes: string[] = [];
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') on_hidden?.();
    return inodes;
  }
  for (const name of names) {
    try {
      const match = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${name}`));
      if (match?.[1]) inodes.push(match[1]);
    } catch {
      // Closed since the folder was listed.
    }
  }
  return inodes;
}

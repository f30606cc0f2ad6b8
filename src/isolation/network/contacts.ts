import type { Socket } from 'node:net';
import type { HostContact } from './policy.ts';
import { authority, type Target } from './rules.ts';

/** Who a machine asked for, and how much went there and came back. */
export interface Contacts {
  /** A connection that is made; its bytes count while it lasts. */
  through(target: Target, socket: Socket): void;
  refused(target: Target, why: string): void;
  /** Every byte of all connections so far, both ways. */
  bytes(): number;
  list(): HostContact[];
}

/** A machine can ask for any number of names: those beyond count together. */
const MOST_HOSTS = 500;
const OTHERS = '(others)';

export function openContacts(): Contacts {
  const all = new Map<string, HostContact>();
  const live = new Map<Socket, HostContact>();

  function entry(target: Target, refused: string | null): HostContact {
    const key = `${authority(target)} ${refused}`;
    const known = all.get(key);
    if (known) return known;
    if (all.size >= MOST_HOSTS && target.host !== OTHERS)
      return entry({ host: OTHERS, port: 0 }, refused === null ? null : 'more than can be listed');
    const made = { ...target, connections: 0, refused, bytes_in: 0, bytes_out: 0 };
    all.set(key, made);
    return made;
  }

  function settle(socket: Socket): void {
    const contact = live.get(socket);
    if (!contact) return;
    live.delete(socket);
    contact.bytes_in += socket.bytesRead;
    contact.bytes_out += socket.bytesWritten;
  }

  function list(): HostContact[] {
    const now = new Map([...all.values()].map((contact) => [contact, { ...contact }]));
    for (const [socket, contact] of live) {
      now.get(contact)!.bytes_in += socket.bytesRead;
      now.get(contact)!.bytes_out += socket.bytesWritten;
    }
    return [...now.values()];
  }

  return {
    through(target, socket) {
      const contact = entry(target, null);
      contact.connections++;
      live.set(socket, contact);
      socket.once('close', () => settle(socket));
    },
    refused(target, why) {
      entry(target, why).connections++;
    },
    bytes: () => list().reduce((sum, one) => sum + one.bytes_in + one.bytes_out, 0),
    list,
  };
}

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type Listener, listenForGuest } from './vsock.ts';

/**
 * One channel of a VM that the engine reads: the guest calls, and calls again whenever the connection was lost (after
 * a restart of the engine, or a snapshot). Until somebody asks for it the newest connection waits, unread.
 */
export interface Channel {
  open(): Promise<Duplex>;
  /** The VM is gone: whoever waits is told. */
  close(reason: string): Promise<void>;
}

interface Waiter {
  resolve(socket: Socket): void;
  reject(error: Error): void;
}

export async function listenOnChannel(name: string, socket_path: string): Promise<Channel> {
  let waiting: Socket | null = null;
  let waiters: Waiter[] = [];
  let closed: string | null = null;
  const listener: Listener = await listenForGuest({
    socket_path,
    max_connections: 4,
    on_connection: (socket) => {
      const waiter = waiters.shift();
      if (waiter !== undefined) return waiter.resolve(socket);
      waiting?.destroy();
      waiting = socket;
      socket.once('close', () => {
        if (waiting === socket) waiting = null;
      });
    },
  });
  return {
    open() {
      if (closed !== null) return Promise.reject(new Error(`channel ${name}: ${closed}`));
      if (waiting !== null) {
        const socket = waiting;
        waiting = null;
        return Promise.resolve(socket);
      }
      return new Promise<Socket>((resolve, reject) => waiters.push({ resolve, reject }));
    },
    async close(reason) {
      closed ??= reason;
      for (const waiter of waiters) waiter.reject(new Error(`channel ${name}: ${reason}`));
      waiters = [];
      await listener.close();
    },
  };
}

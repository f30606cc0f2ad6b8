/** How a client's connection ends when it cannot end in the ordinary way. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** A client that is cut off while it still sends may never read the answer: it gets this long to notice it. */
const LINGER_MS = 2000;

/** Reads the rest of a request that was answered early and throws it away, for a short time. */
export function discardBody(request: IncomingMessage): void {
  if (request.complete || request.socket.destroyed) return;
  const timer = setTimeout(() => request.socket.destroy(), LINGER_MS).unref();
  request.once('end', () => clearTimeout(timer));
  request.once('close', () => clearTimeout(timer));
  request.resume();
}

/** An answer broke off: the connection is reset, because a plain end would look like a whole answer to some clients. */
export function cut(socket: Socket): void {
  // A socket that is being shut down cannot be reset any more; node would leak its handle (seen in 24.21).
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

/** For a connection on which nothing has moved for a while: a client that takes nothing of its answer is cut. */
export function cutIfStuck(socket: Socket): void {
  if (socket.writableLength > 0) cut(socket);
}

/**
 * The requests of one client connection, answered one at a time and in order. A client may send the next request
 * before the last one was answered (pipelining); it waits here. So a connection never holds more than one instance,
 * an answer always has its connection to itself, and it is known whether an upgrade may take the connection over.
 */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

export class Turns {
  readonly #socket: Socket;
  readonly #max_waiting: number;
  readonly #waiting: (() => void)[] = [];
  #answering = false;

  /** With `max_waiting` requests that wait, no more are read (one read from the network may bring a few more). */
  constructor(socket: Socket, max_waiting: number) {
    this.#socket = socket;
    this.#max_waiting = max_waiting;
    // Node resumes the connection by itself after each request it has parsed.
    socket.on('resume', () => {
      if (this.#isFull()) socket.pause();
    });
  }

  /** No request is unanswered. */
  isIdle(): boolean {
    return !this.#answering;
  }

  /** Calls `answer` when the requests before it are over: now, later, or never when the connection ends first. */
  take(response: ServerResponse, answer: () => void): void {
    const begin = (): void => {
      this.#answering = true;
      response.once('close', () => this.#next());
      answer();
    };
    if (!this.#answering) begin();
    else this.#waiting.push(begin);
    if (this.#isFull()) this.#socket.pause();
  }

  #next(): void {
    this.#answering = false;
    // After an answer that said `Connection: close` the rest is not heard (RFC 9112, 9.6).
    if (this.#socket.destroyed || this.#socket.writableEnded) {
      this.#waiting.length = 0;
      return;
    }
    const was_full = this.#isFull();
    this.#waiting.shift()?.();
    if (was_full && !this.#isFull()) this.#socket.resume();
  }

  #isFull(): boolean {
    return this.#waiting.length >= this.#max_waiting;
  }
}

import type { Duplex } from 'node:stream';
import { type GuestEvent, makeEventReader } from './guest/protocol.ts';

/** The control channel of one VM: what was said last of each kind, and waiting for what comes next. */
export interface Conversation {
  say(word: 'go' | 'term' | 'ports' | 'usage' | 'done'): void;
  last<E extends GuestEvent['event']>(event: E): Extract<GuestEvent, { event: E }> | null;
  /** The next event of a kind, or null after a time or when the channel ends. */
  next<E extends GuestEvent['event']>(
    event: E,
    patience_ms: number,
  ): Promise<Extract<GuestEvent, { event: E }> | null>;
  /**
   * Says a word until its answer comes, or null after a time. The agent's shell loses what it has read of a line when its
   * time to listen ends in the middle of it.
   */
  ask<E extends GuestEvent['event']>(
    word: 'ports' | 'usage',
    event: E,
    patience_ms: number,
  ): Promise<Extract<GuestEvent, { event: E }> | null>;
  /** When the guest was heard last (performance.now()). */
  heard_at(): number;
  close(): void;
}

/** How long after a word that was not answered it is said again. */
export const AGAIN_MS = 1000;

export function converse(channel: Duplex, on_event: (event: GuestEvent) => void): Conversation {
  const last = new Map<string, GuestEvent>();
  const waiting = new Map<string, Set<(event: GuestEvent | null) => void>>();
  let heard_at = performance.now();
  const read = makeEventReader((event) => {
    heard_at = performance.now();
    last.set(event.event, event);
    const waiters = waiting.get(event.event);
    waiting.delete(event.event);
    for (const resolve of waiters ?? []) resolve(event);
    on_event(event);
  });
  const giveUp = () => {
    for (const waiters of waiting.values()) for (const resolve of waiters) resolve(null);
    waiting.clear();
  };
  channel
    .on('data', read)
    .on('error', () => channel.destroy())
    .on('close', giveUp);
  const talk: Conversation = {
    say(word) {
      if (!channel.destroyed) channel.write(`${word}\n`);
    },
    async ask(word, event, patience_ms) {
      for (const give_up_at = performance.now() + patience_ms; ; ) {
        const left_ms = give_up_at - performance.now();
        if (channel.destroyed || left_ms <= 0) return null;
        talk.say(word);
        const answer = await talk.next(event, Math.min(AGAIN_MS, left_ms));
        if (answer !== null) return answer;
      }
    },
    last: (event) => (last.get(event) ?? null) as never,
    next(event, patience_ms) {
      if (channel.destroyed) return Promise.resolve(null);
      return new Promise((resolve) => {
        const waiters = waiting.get(event) ?? new Set();
        waiting.set(event, waiters);
        const timer = setTimeout(() => {
          waiters.delete(done);
          resolve(null);
        }, patience_ms);
        const done = (value: GuestEvent | null) => {
          clearTimeout(timer);
          resolve(value as never);
        };
        waiters.add(done);
      });
    },
    heard_at: () => heard_at,
    close: () => channel.destroy(),
  };
  return talk;
}

/**
 * Answers that stay open (event streams, held answers) take a place for as long as they do, and there are so many for each
 * key: an engine is shared, and what one caller leaves open must not be what another one lacks.
 */
import { KilnError } from '../domain/errors.ts';

export interface Places {
  /**
   * Takes one of the `most` places of this name; call what it answers to give it back, also more than once.
   * Errors: RATE_LIMITED, which says what all the places are taken by.
   */
  take(name: string, most: number, taken_by: string): () => void;
}

/** When to try again is not known: a place is free when somebody closes something. */
const RETRY_AFTER_S = 5;

export function makePlaces(): Places {
  const taken = new Map<string, number>();
  return {
    take(name, most, taken_by) {
      const before = taken.get(name) ?? 0;
      if (before >= most)
        throw new KilnError('RATE_LIMITED', `${taken_by}, which is the most. Close one and try again.`, {
          details: { retry_after: RETRY_AFTER_S, most },
        });
      taken.set(name, before + 1);
      let is_held = true;
      return () => {
        if (!is_held) return;
        is_held = false;
        const left = taken.get(name)! - 1;
        if (left === 0) taken.delete(name);
        else taken.set(name, left);
      };
    },
  };
}

/** Event streams of one key. */
export const STREAMS = 128;
/** Answers of one key that wait for something to end: a command, an operation. */
export const HELD = 256;
/** Streams that watch files: each looks at a whole workspace again and again. */
export const WATCHERS = { tenant: 16, all: 64 };

interface Asking {
  places: Places;
  caller: { key: { id: string }; tenant_id: string };
}

export function takeStream({ places, caller }: Asking): () => void {
  return places.take(`stream ${caller.key.id}`, STREAMS, `This key has ${STREAMS} event streams open`);
}

export function takeHeld({ places, caller }: Asking): () => void {
  return places.take(
    `held ${caller.key.id}`,
    HELD,
    `${HELD} calls of this key wait for a command or an operation to end`,
  );
}

export function takeWatcher({ places, caller }: Asking): () => void {
  const { tenant, all } = WATCHERS;
  const own = places.take(`watch ${caller.tenant_id}`, tenant, `Your ${tenant} streams watch files already`);
  try {
    const shared = places.take('watch', all, `${all} streams of this engine watch files already`);
    return () => {
      own();
      shared();
    };
  } catch (error) {
    own();
    throw error;
  }
}

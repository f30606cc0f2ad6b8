/**
 * How long an instance may be silent. Bodies pass through the edge with backpressure, so a stream that stands still
 * may wait for the instance or for the client: only the instance's share is counted here. The client's share has
 * limits of its own (`request_timeout_ms` for what it sends, `silence_timeout_ms` for what it takes).
 */
export interface SilenceOptions {
  ms: number;
  /** Is it the instance that is waited for? Otherwise the time begins anew. */
  waits_for_instance: () => boolean;
  /** Called once, with the clock stopped. */
  on_silence: () => void;
}

export class SilenceClock {
  #timer: NodeJS.Timeout | null;
  #last_look: NodeJS.Immediate | null = null;

  constructor({ ms, waits_for_instance, on_silence }: SilenceOptions) {
    const look = (): void => {
      this.#last_look = null;
      if (!waits_for_instance()) return void this.#timer?.refresh();
      this.#timer = null;
      on_silence();
    };
    // Timers come before the network in a turn of the event loop: after a turn that took long, what the instance has
    // said meanwhile is heard only now.
    this.#timer = setTimeout(() => {
      this.#last_look = setImmediate(look);
    }, ms);
  }

  /** Something moved: the time begins anew. */
  restart(): void {
    this.#cancelLook();
    this.#timer?.refresh();
  }

  stop(): void {
    this.#cancelLook();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #cancelLook(): void {
    if (this.#last_look !== null) clearImmediate(this.#last_look);
    this.#last_look = null;
  }
}

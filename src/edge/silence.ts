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

  constructor({ ms, waits_for_instance, on_silence }: SilenceOptions) {
    const check = (): void => {
      if (!waits_for_instance()) return void this.#timer?.refresh();
      this.#timer = null;
      on_silence();
    };
    this.#timer = setTimeout(check, ms);
  }

  /** Something moved: the time begins anew. */
  restart(): void {
    this.#timer?.refresh();
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

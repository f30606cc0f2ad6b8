/** Collects on a timer: some minutes after the start, so that an engine that never runs for long does so too, then every six hours. */
import type { EngineContext } from './context.ts';
import { collect, type GcReport } from './retention.ts';

const FIRST_MS = 5 * 60_000;
const EVERY_MS = 6 * 3600_000;

export class Collector {
  readonly #say: EngineContext['say'];
  readonly #collect: (signal: AbortSignal) => Promise<GcReport>;
  readonly #after: { first_ms: number; every_ms: number };
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #passing: Promise<void> | null = null;

  constructor(
    ctx: EngineContext,
    run = (signal: AbortSignal) => collect(ctx, { dry_run: false, signal }),
    after = { first_ms: FIRST_MS, every_ms: EVERY_MS },
  ) {
    this.#say = ctx.say;
    this.#collect = run;
    this.#after = after;
  }

  start(): void {
    this.#arm(this.#after.first_ms);
  }

  async stop(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer);
    this.#stop.abort();
    await this.#passing;
  }

  #arm(after_ms: number): void {
    if (this.#stop.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#passing = this.#pass().finally(() => this.#arm(this.#after.every_ms));
    }, after_ms);
    this.#timer.unref();
  }

  async #pass(): Promise<void> {
    const { signal } = this.#stop;
    try {
      const { removed, removed_bytes, kept } = await this.#collect(signal);
      this.#say('info', `retention: removed ${removed.length}, kept ${kept.length}`, { removed_bytes });
    } catch (error) {
      if (signal.aborted) return;
      this.#say('error', 'retention failed; it is tried again in some hours, or by `kiln gc`', {
        error: String(error),
      });
    }
  }
}

/**
 * Live progress of stages on stderr: on a terminal a spinner with the elapsed time and the last log line, else one
 * plain line per finished stage, and a sign of life during long ones. With `--json` one event per stage on stdout.
 */
import { formatDuration, type Output, plainText } from './output.ts';

const FRAMES = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const FRAME_MS = 100;
const SIGN_OF_LIFE_MS = 10_000;
const NAME_WIDTH = 10;
const CLEAR_LINE = '\r\u001b[2K';

export class Progress {
  readonly #out: Output;
  readonly #live: boolean;
  #stage: string | null = null;
  #since_ms = 0;
  #detail = '';
  #frame = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(out: Output) {
    this.#out = out;
    this.#live = !out.json && out.stderr.isTTY === true;
  }

  /** The stage under way; the one before must have been ended. */
  begin(stage: string): void {
    if (this.#stage === stage) return;
    this.#stage = stage;
    this.#since_ms = performance.now();
    this.#detail = '';
    this.#out.emit({ event: 'stage', stage, state: 'running' });
    if (this.#out.json) return;
    this.#timer ??= setInterval(
      () => (this.#live ? this.#draw() : this.#tell()),
      this.#live ? FRAME_MS : SIGN_OF_LIFE_MS,
    ).unref();
    if (this.#live) this.#draw();
  }

  /** What the stage is doing; shown while it runs. An empty line says less than the one before. */
  detail(text: string): void {
    this.#detail = plainText(text).trim() || this.#detail;
  }

  /** The stage has ended. `duration_ms` null: as measured here. */
  end(stage: string, of: { ok: boolean; duration_ms: number | null; note?: string | undefined }): void {
    const measured_ms = this.#stage === stage ? performance.now() - this.#since_ms : null;
    const duration_ms = of.duration_ms ?? (measured_ms === null ? null : Math.round(measured_ms));
    if (this.#stage === stage) this.#stage = null;
    this.#erase();
    this.#out.emit({
      event: 'stage',
      stage,
      state: of.ok ? 'done' : 'failed',
      duration_ms,
      ...(of.note === undefined ? {} : { note: of.note }),
    });
    const { stderr } = this.#out;
    const mark = of.ok ? this.#out.paint('green', '✔', stderr) : this.#out.paint('red', '✖', stderr);
    const time = duration_ms === null ? '' : formatDuration(duration_ms);
    const note = of.note === undefined ? '' : `  ${plainText(of.note)}`;
    this.#out.note(`${mark} ${stage.padEnd(NAME_WIDTH)} ${time.padStart(9)}${note}`.trimEnd());
  }

  /** A line above the spinner. */
  note(text: string): void {
    this.#erase();
    this.#out.note(text);
  }

  stop(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
    this.#stage = null;
    this.#erase();
  }

  #erase(): void {
    if (this.#live) this.#out.stderr.write(CLEAR_LINE);
  }

  #tell(): void {
    if (this.#stage === null) return;
    const time = formatDuration(performance.now() - this.#since_ms);
    this.#out.note(`  ${this.#stage.padEnd(NAME_WIDTH)} ${time.padStart(9)}  ${this.#detail}`.trimEnd());
  }

  #draw(): void {
    if (this.#stage === null) return;
    const { stderr } = this.#out;
    const frame = FRAMES[this.#frame++ % FRAMES.length]!;
    const time = formatDuration(Math.floor((performance.now() - this.#since_ms) / 100) * 100);
    const head = `${frame} ${this.#stage.padEnd(NAME_WIDTH)} ${time.padStart(9)}  `;
    const room = Math.max(0, (stderr.columns ?? 80) - head.length - 1);
    const detail = [...this.#detail].slice(0, room).join('');
    stderr.write(CLEAR_LINE + this.#out.render(head + this.#out.paint('dim', detail, stderr)));
  }
}

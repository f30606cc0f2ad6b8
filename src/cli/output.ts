/**
 * What a command writes. Results go to stdout, everything on the way (progress, notes, warnings) to stderr. With
 * `--json` stdout carries one object, or for long-running commands one line per event, and stderr stays empty.
 */
import { randomBytes } from 'node:crypto';
import { stripVTControlCharacters, styleText } from 'node:util';

export interface Stream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

export type Style = 'green' | 'red' | 'yellow' | 'cyan' | 'dim' | 'bold';

/** Text that came from elsewhere (logs, file names, answers), without what would steer a terminal. Tabs stay. */
export function plainText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return stripVTControlCharacters(text).replace(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g, '');
}

/**
 * Stands in a text for the beginning and the end of our own paint, until the text is written: so that everything else in
 * it can be cleaned there, whoever it came from. Nobody outside of this process can write it.
 */
const PAINT = `\u0000${randomBytes(8).toString('hex')}:`;
const PAINTED = new RegExp(`${PAINT}(\\w*);`);

/**
 * All that goes to a terminal goes through here: texts of the engine, of apps and of files are cleaned of what would
 * steer it. Line ends stay.
 */
export class Output {
  readonly json: boolean;
  readonly stdout: Stream;
  readonly stderr: Stream;
  readonly #colour: boolean;

  constructor(o: { json: boolean; stdout: Stream; stderr: Stream; no_colour: boolean }) {
    this.json = o.json;
    this.stdout = o.stdout;
    this.stderr = o.stderr;
    this.#colour = !o.no_colour;
  }

  /** A line of the result, for people. */
  line(text = ''): void {
    if (!this.json) this.stdout.write(`${this.render(text)}\n`);
  }

  /** A line on the way, for people. */
  note(text: string): void {
    if (!this.json) this.stderr.write(`${this.render(text)}\n`);
  }

  warn(text: string): void {
    this.note(`${this.paint('yellow', 'warning:', this.stderr)} ${text}`);
  }

  /** One object on one line of stdout, only with `--json`. */
  emit(object: Record<string, unknown>): void {
    if (this.json) this.stdout.write(`${JSON.stringify(object)}\n`);
  }

  /** The result: the object with `--json`, else what `show` writes. */
  result(object: object, show: () => void): void {
    if (this.json) this.stdout.write(`${JSON.stringify(object, null, 2)}\n`);
    else show();
  }

  paint(style: Style, text: string, stream: Stream = this.stdout): string {
    return this.#colour && stream.isTTY === true ? `${PAINT}${style};${text}${PAINT};` : text;
  }

  /** As it is written: our own paint, and nothing else that steers a terminal. */
  render(text: string): string {
    let end = '';
    return text
      .split(PAINTED)
      .map((part, at) => {
        if (at % 2 === 0) return part.split('\n').map(plainText).join('\n');
        const [on, off] =
          part === '' ? ['', end] : styleText(part as Style, '|', { validateStream: false }).split('|');
        end = part === '' ? '' : off!;
        return part === '' ? off! : on!;
      })
      .join('');
  }

  /** Columns as wide as their widest cell; the heading only when there are rows. */
  table(heading: string[], rows: string[][]): void {
    if (rows.length === 0) return;
    const cells = [heading, ...rows.map((row) => row.map(plainText))];
    const widths = heading.map((_, at) => Math.max(...cells.map((row) => (row[at] ?? '').length)));
    for (const [n, row] of cells.entries()) {
      const text = row
        .map((cell, at) => cell.padEnd(widths[at]!))
        .join('  ')
        .trimEnd();
      this.line(n === 0 ? this.paint('dim', text) : text);
    }
  }

  /** `name  value` lines; those without a value are left out. */
  fields(rows: [string, string | number | null | undefined][]): void {
    const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== '');
    const width = Math.max(0, ...shown.map(([name]) => name.length));
    for (const [name, value] of shown)
      this.line(`${this.paint('dim', name.padEnd(width))}  ${plainText(String(value))}`);
  }
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** `3 min ago`; `now_ms` is Unix time. */
export function formatAge(iso: string, now_ms: number): string {
  const seconds = Math.max(0, Math.round((now_ms - Date.parse(iso)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

export function plural(count: number, noun: string): string {
  return `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
}

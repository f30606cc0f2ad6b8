import { StringDecoder } from 'node:string_decoder';

/**
 * Removal of secret values from text (I10), by value: each occurrence of a secret, or of a form that tools print
 * it in (JSON-escaped, URL-encoded, base64 alone or inside a longer base64 text, single lines of a multi-line
 * secret), becomes `[redacted]`. The longest form that matches at a place wins.
 *
 * Values shorter than 4 characters are ignored: they occur everywhere, and hiding them would make logs unreadable
 * without hiding anything. Of multi-line secrets, lines of 6 characters and more are also hidden on their own.
 */
export const REDACTED = '[redacted]';

const SHORTEST_SECRET = 4;
const SHORTEST_LINE = 6;
/** Parts of base64 found inside longer base64 are only looked for from this length: shorter ones match by chance. */
const SHORTEST_INNER_BASE64 = 8;

export interface Redactor {
  /** Text that can be passed on now. Holds back only what may be the start of a secret. */
  push(chunk: Buffer | string): string;
  /** The rest, at the end of the stream. */
  flush(): string;
}

export function redactText(text: string, secrets: readonly string[]): string {
  const redactor = makeRedactor(secrets);
  return redactor.push(text) + redactor.flush();
}

/** The same value with every text in it passed through `redact`, whatever lists and plain objects it lies in. */
export function redactIn<T>(value: T, redact: (text: string) => string): T {
  const inner = (of: unknown): unknown => {
    if (typeof of === 'string') return redact(of);
    if (of instanceof Error) return redact(of.stack ?? String(of));
    if (Array.isArray(of)) return of.map(inner);
    if (typeof of !== 'object' || of === null || Object.getPrototypeOf(of) !== Object.prototype) return of;
    return Object.fromEntries(Object.entries(of).map(([name, part]) => [name, inner(part)]));
  };
  return inner(value) as T;
}

/** A redactor for one stream; the result does not depend on where the stream is cut into chunks. */
export function makeRedactor(secrets: readonly string[]): Redactor {
  const decoder = new StringDecoder('utf8');
  const forms = formsOf(secrets);
  if (forms.length === 0)
    return {
      push: (chunk) => (typeof chunk === 'string' ? chunk : decoder.write(chunk)),
      flush: () => decoder.end(),
    };

  const matcher = new RegExp(forms.map(escapeRegExp).join('|'), 'g');
  const by_first = Map.groupBy(forms, (form) => form[0]!);
  const longest = forms[0]!.length;
  let held = '';

  /** First place from `from` on where the text could be the start of a form that continues in the next chunk. */
  function openPlace(text: string, from: number): number {
    for (let at = Math.max(from, text.length - longest + 1); at < text.length; at++) {
      const length = text.length - at;
      const candidates = by_first.get(text[at]!);
      if (candidates?.some((form) => form.length > length && form.startsWith(text.slice(at)))) return at;
    }
    return text.length;
  }

  function advance(text: string, at_end: boolean): string {
    let done = '';
    let from = 0;
    let open = at_end ? text.length : openPlace(text, 0);
    for (;;) {
      matcher.lastIndex = from;
      const match = matcher.exec(text);
      // From `open` on, a longer form may still turn up: wait for it.
      if (match === null || match.index >= open) break;
      done += text.slice(from, match.index) + REDACTED;
      from = match.index + match[0].length;
      if (open < from) open = openPlace(text, from);
    }
    held = text.slice(open);
    return done + text.slice(from, open);
  }

  return {
    push: (chunk) => advance(held + (typeof chunk === 'string' ? chunk : decoder.write(chunk)), false),
    flush: () => advance(held + decoder.end(), true),
  };
}

/** Every text that stands for one of the secrets, longest first. */
function formsOf(secrets: readonly string[]): string[] {
  const forms = new Set<string>();
  for (const secret of secrets) {
    if (secret.length < SHORTEST_SECRET) continue;
    const lines = secret.split(/\r?\n/).filter((line) => line.length >= SHORTEST_LINE);
    const percent = percentEncoded(secret);
    forms
      .add(secret)
      .add(JSON.stringify(secret).slice(1, -1))
      .add(percent)
      .add(percent.replaceAll('%20', '+'))
      .add(percent.replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()));
    for (const line of secret.includes('\n') ? lines : []) forms.add(line);
    for (const form of base64Forms(secret)) forms.add(form);
  }
  return [...forms].sort((a, b) => b.length - a.length || (a < b ? -1 : 1));
}

/** Lone surrogates, which a string from elsewhere may hold, cannot be percent-encoded. */
function percentEncoded(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/**
 * The secret in base64, with and without padding, in both alphabets; and the characters that stay the same when
 * it follows one or two other bytes, as in `user:password` of HTTP basic authentication.
 */
function base64Forms(secret: string): string[] {
  const bytes = Buffer.from(secret, 'utf8');
  const forms = [bytes.toString('base64'), bytes.toString('base64').replace(/=+$/, '')];
  for (const offset of [0, 1, 2]) {
    const shifted = Buffer.concat([Buffer.alloc(offset), bytes]);
    const inner = shifted
      .toString('base64')
      .slice(Math.ceil((offset * 4) / 3), Math.floor((shifted.length * 4) / 3));
    if (inner.length >= SHORTEST_INNER_BASE64) forms.push(inner);
  }
  return forms.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')]);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&');
}

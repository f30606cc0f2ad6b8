/**
 * Manifests as other people wrote them: parsed into plain objects, or refused with the position of the mistake.
 */
import { parse as parseToml, TomlError } from 'smol-toml';
import { parseDocument } from 'yaml';

export type Table = Record<string, unknown>;
export type Parsed = { ok: true; value: Table } | { ok: false; line: number | null; problem: string };

/** No manifest that a person wrote is larger. The YAML parser takes 300 ms for as much as it may get. */
const MAX_LENGTH = 512 * 1024;
const MAX_YAML_LENGTH = 64 * 1024;

const lineAt = (text: string, offset: number): number => text.slice(0, offset).split('\n').length;

export const isTable = (value: unknown): value is Table =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function checked(text: string, parse: () => unknown, positionOf: (error: unknown) => number | null): Parsed {
  if (text.includes('\0')) return { ok: false, line: null, problem: 'it is a binary file' };
  if (text.length > MAX_LENGTH)
    return { ok: false, line: null, problem: `it is larger than ${MAX_LENGTH} bytes` };
  try {
    const value = parse();
    if (isTable(value)) return { ok: true, value };
    return { ok: false, line: 1, problem: 'it does not hold an object' };
  } catch (error) {
    const first = (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
    return { ok: false, line: positionOf(error), problem: first.slice(0, 200) };
  }
}

/** JSON. */
export function parseJson(text: string): Parsed {
  return checked(
    text,
    () => JSON.parse(text),
    (error) => {
      const message = error instanceof Error ? error.message : '';
      const line = /\(line (\d+) column/.exec(message);
      if (line) return Number(line[1]);
      const position = /at position (\d+)/.exec(message);
      if (position) return lineAt(text, Number(position[1]));
      return /end of JSON/.test(message) ? lineAt(text, text.length) : null;
    },
  );
}

/** JSON with comments and trailing commas (tsconfig.json, deno.jsonc, angular.json). */
export function parseJsonc(text: string): Parsed {
  return text.length > MAX_LENGTH ? parseJson(text) : parseJson(withoutComments(text));
}

/** One pass over the text, so that hostile input costs no more than its length. Lines keep their numbers. */
function withoutComments(text: string): string {
  const pieces: string[] = [];
  /** Where the comma is that nothing has followed yet; dropped when the next thing is a closing bracket. */
  let comma = -1;
  let at = 0;
  while (at < text.length) {
    const char = text[at]!;
    let end = at + 1;
    if (text.startsWith('//', at)) {
      end = text.indexOf('\n', at);
      if (end < 0) end = text.length;
    } else if (text.startsWith('/*', at)) {
      end = text.indexOf('*/', at + 2);
      end = end < 0 ? text.length : end + 2;
      pieces.push(text.slice(at, end).replace(/[^\n]/g, ''));
    } else {
      if (char === '"') {
        while (end < text.length && text[end] !== '"' && text[end] !== '\n')
          end += text[end] === '\\' ? 2 : 1;
        end++;
      }
      if ((char === '}' || char === ']') && comma >= 0) pieces[comma] = '';
      if (char === ',') comma = pieces.length;
      else if (char > ' ') comma = -1;
      pieces.push(text.slice(at, end));
    }
    at = end;
  }
  return pieces.join('');
}

/** TOML. */
export function parseTomlTable(text: string): Parsed {
  return checked(
    text,
    () => parseToml(text),
    (error) => (error instanceof TomlError ? error.line : null),
  );
}

/** YAML, one document. */
export function parseYaml(text: string): Parsed {
  // Its parser calls itself: where the stack ends would differ from run to run.
  if (nestsDeeply(text)) return { ok: false, line: null, problem: 'it is nested too deeply' };
  if (text.length > MAX_YAML_LENGTH)
    return { ok: false, line: null, problem: `it is larger than ${MAX_YAML_LENGTH} bytes` };
  return checked(
    text,
    () => {
      const document = parseDocument(text, { logLevel: 'silent', uniqueKeys: false });
      const problem = document.errors[0];
      if (problem) throw Object.assign(new Error(problem.message), { line: problem.linePos?.[0].line });
      return document.toJS({ maxAliasCount: 100 });
    },
    (error) => (error as { line?: number }).line ?? null,
  );
}

const MAX_DEPTH = 50;

function nestsDeeply(text: string): boolean {
  let depth = 0;
  let dashes = 0;
  for (const char of text) {
    if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') depth--;
    else if (char === '-' || char === '?' || char === ':') dashes++;
    else if (char === '\n') dashes = 0;
    if (depth > MAX_DEPTH || dashes > MAX_DEPTH * 4) return true;
  }
  return false;
}

/** A string inside nested tables: `stringAt(pkg, 'engines', 'node')`; null for anything else. */
export function stringAt(table: unknown, ...keys: string[]): string | null {
  const value = valueAt(table, ...keys);
  return typeof value === 'string' && value.trim() !== '' ? value : null;
}

/** A table inside nested tables; empty when it is missing or something else. */
export function tableAt(table: unknown, ...keys: string[]): Table {
  const value = valueAt(table, ...keys);
  return isTable(value) ? value : {};
}

/** The strings of a list inside nested tables. */
export function stringsAt(table: unknown, ...keys: string[]): string[] {
  const value = valueAt(table, ...keys);
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];
}

function valueAt(table: unknown, ...keys: string[]): unknown {
  let value = table;
  for (const key of keys) value = isTable(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

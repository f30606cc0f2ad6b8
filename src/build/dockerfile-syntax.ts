/**
 * A Dockerfile as BuildKit reads it: instructions over several lines, comments between them, here-documents, the
 * `escape` directive, stages, and the values of ARG and ENV. One pass; nothing in it is run.
 */

export interface Instruction {
  /** In capitals: 'FROM', 'EXPOSE'. */
  name: string;
  /** What follows it, on one line; the texts of here-documents are left out. */
  args: string;
  line: number;
}

export interface Stage {
  /** The image under all the stages it starts from; null when a variable in it has no value. */
  image: string | null;
  /** As written, for people. */
  from: string;
  name: string | null;
  line: number;
  /** Its own instructions, after those of the stages it starts from. */
  instructions: Instruction[];
  /** ARG defaults and ENV, as they stand at its end. */
  values: ReadonlyMap<string, string>;
}

const MAX_LINES = 3000;
const MAX_LINE_LENGTH = 4000;
/** Longer ones are data, not instructions that a plan needs. */
const MAX_ARGS_LENGTH = 16 * 1024;
const MAX_STAGES = 100;
/** `ENV A=$A$A` doubles each time. */
const MAX_VALUE_LENGTH = 2000;
const TAKES_HERE_DOCUMENTS = new Set(['RUN', 'COPY', 'ADD']);
const HERE_DOCUMENT = /(?:^|\s)\d*<<-?\s*(?:(["'])([\w.-]{1,100})\1|([\w.-]{1,100}))/g;

/** The character that `# escape=` names; directives are the very first lines only. */
function escapeCharacter(lines: string[]): string {
  for (const line of lines) {
    const directive = /^\s*#\s*([a-z]+)\s*=\s*(\S+)\s*$/i.exec(line);
    if (!directive) return '\\';
    if (directive[1]!.toLowerCase() === 'escape') return directive[2] === '`' ? '`' : '\\';
  }
  return '\\';
}

/** Its instructions in order; lines that are none are left out. */
export function instructionsOf(text: string): Instruction[] {
  const lines = text.split(/\r?\n/, MAX_LINES).map((line) => line.slice(0, MAX_LINE_LENGTH));
  const joins = escapeCharacter(lines);
  const continues = (line: string) => line.trimEnd().endsWith(joins);
  const found: Instruction[] = [];
  for (let at = 0; at < lines.length; at++) {
    const first = /^\s*([a-z]+)(?:\s+(.*))?$/i.exec(lines[at]!);
    if (!first) continue;
    const line = at + 1;
    const parts = [first[2] ?? ''];
    let length = 0;
    // Comments and empty lines between the parts do not end an instruction.
    while (continues(parts.at(-1)!) && at + 1 < lines.length) {
      parts[parts.length - 1] = parts.at(-1)!.trimEnd().slice(0, -1);
      do at++;
      while (at + 1 < lines.length && /^\s*(?:#.*)?$/.test(lines[at]!));
      length += lines[at]!.length;
      parts.push(/^\s*#/.test(lines[at]!) || length > MAX_ARGS_LENGTH ? '' : lines[at]!);
    }
    const name = first[1]!.toUpperCase();
    const args = parts.join('').trim();
    found.push({ name, args, line });
    if (TAKES_HERE_DOCUMENTS.has(name)) at = afterHereDocuments(lines, at, args);
  }
  return found;
}

/** The last line of the here-documents that an instruction ending at `at` opens. */
function afterHereDocuments(lines: string[], at: number, args: string): number {
  for (const opened of args.matchAll(HERE_DOCUMENT)) {
    const end = opened[2] ?? opened[3];
    const tabs = opened[0].includes('<<-');
    const close = lines.findIndex(
      (line, index) => index > at && (tabs ? line.replace(/^\t+/, '') : line) === end,
    );
    if (close < 0) return lines.length;
    at = close;
  }
  return at;
}

/** Stages in order. A stage that starts from an earlier one has that one's instructions and values too. */
export function stagesOf(text: string): Stage[] {
  const stages: Stage[] = [];
  const global = new Map<string, string>();
  let values = new Map<string, string>();
  for (const instruction of instructionsOf(text)) {
    const stage = stages.at(-1);
    if (instruction.name === 'FROM') {
      if (stages.length === MAX_STAGES) break;
      const from = /^(?:--\S+\s+)*(\S{1,300})(?:\s+AS\s+(\S{1,100}))?/i.exec(instruction.args);
      if (!from) continue;
      const base = filledIn(from[1]!, global);
      const parent = stages.findLast(({ name }) => name !== null && name === base?.toLowerCase());
      values = new Map(parent?.values);
      stages.push({
        image: parent ? parent.image : base,
        from: from[1]!,
        name: from[2]?.toLowerCase() ?? null,
        line: instruction.line,
        instructions: [...(parent?.instructions ?? [])],
        values,
      });
    } else if (!stage) {
      if (instruction.name === 'ARG')
        for (const [key, value] of pairs(instruction.args, global))
          if (value !== null) global.set(key, value);
    } else {
      if (instruction.name === 'ARG') {
        for (const [key, value] of pairs(instruction.args, values)) {
          const known = value ?? global.get(key);
          // ENV outranks an ARG of the same name.
          if (known !== undefined && !values.has(key)) values.set(key, known);
        }
      }
      if (instruction.name === 'ENV')
        for (const [key, value] of pairs(instruction.args, values)) values.set(key, value ?? '');
      stage.instructions.push(instruction);
    }
  }
  return stages;
}

/** `A=1 B="x y"` and the old `A 1`, values filled in; null for a name without one. */
function pairs(args: string, values: ReadonlyMap<string, string>): [string, string | null][] {
  const old = /^([A-Za-z_]\w{0,100})\s+([^=]*)$/.exec(args);
  if (old) return [[old[1]!, filledIn(unquoted(old[2]!), values) ?? '']];
  const found: [string, string | null][] = [];
  for (const [, name, value] of args.matchAll(
    /([A-Za-z_]\w{0,100})(?:=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"']*))?(?=\s|$)/g,
  )) {
    found.push([name!, value === undefined ? null : (filledIn(unquoted(value), values) ?? '')]);
  }
  return found;
}

const unquoted = (text: string): string => text.replace(/^(["'])(.*)\1$/, '$2');

/** `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}` replaced; null when a name has no value. */
export function filledIn(text: string, values: ReadonlyMap<string, string>): string | null {
  let known = true;
  const result = text.replace(
    /\$(?:(\w{1,100})|\{(\w{1,100})(?::?([-+])([^{}$]{0,200}))?\})/g,
    (_, plain: string | undefined, braced: string | undefined, sign: string | undefined, word = '') => {
      const value = values.get(plain ?? braced!);
      if (sign === '+') return value ? word : '';
      if (value || (value === '' && sign === undefined)) return value;
      if (sign === '-') return word;
      known = false;
      return '';
    },
  );
  return known && !result.includes('$') && result.length <= MAX_VALUE_LENGTH ? result : null;
}

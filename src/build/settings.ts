/**
 * What a person decided instead of the detector, from four places with one order of precedence:
 * request > environment (`KILN_*`) > kiln.toml > kiln.json. Each field comes from the first place that has it.
 */
import type { PlanOverrides, PlanSource } from '../domain/plan.ts';
import { cleanPath, joinPath, type SourceFiles } from './files.ts';
import { parseJson, parseTomlTable, type Table } from './manifest.ts';

/** Everything that can be set; all but `startup_timeout_ms` can also come with a request. */
export interface Settings extends PlanOverrides {
  /** How long the first 2xx may take. Milliseconds. */
  startup_timeout_ms?: number;
}

export type SettingKey = keyof Settings;
export type SettingSources = Partial<Record<SettingKey, PlanSource>>;
export type SettingsResult =
  | { ok: true; settings: Settings; sources: SettingSources; warnings: string[] }
  | { ok: false; message: string; next_step: string };

interface Field {
  /** For the manual and the JSON schema. */
  about: string;
  type: 'string' | 'integer' | 'boolean';
  /** The value as it is kept, or what is wrong with it. */
  check: (value: string | number | boolean) => { value: string | number | boolean } | { problem: string };
  schema: Record<string, unknown>;
}

const MAX_COMMAND_LENGTH = 32 * 1024;

const command: Pick<Field, 'type' | 'check' | 'schema'> = {
  type: 'string',
  check: (value) => {
    const text = String(value).trim();
    if (text.length > MAX_COMMAND_LENGTH)
      return { problem: `is longer than ${MAX_COMMAND_LENGTH} characters` };
    return text.includes('\0') ? { problem: 'holds a NUL character' } : { value: text };
  },
  schema: { type: 'string', minLength: 1, maxLength: MAX_COMMAND_LENGTH },
};

const path: Pick<Field, 'type' | 'check' | 'schema'> = {
  type: 'string',
  check: (value) => {
    // Callers who know the machine's view write /workspace/dist.
    const relative = String(value).replace(/^\/workspace(?=\/|$)\/*/, '');
    const clean = cleanPath(relative);
    return clean === null ? { problem: 'is not a relative path inside the source' } : { value: clean };
  },
  schema: { type: 'string', minLength: 1 },
};

const integer = (min: number, max: number): Pick<Field, 'type' | 'check' | 'schema'> => ({
  type: 'integer',
  check: (value) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
      ? { value }
      : { problem: `is not a whole number from ${min} to ${max}` },
  schema: { type: 'integer', minimum: min, maximum: max },
});

const KINDS = ['auto', 'static', 'dynamic'];

/** Every setting, in the order of the manual. */
const FIELDS: Record<SettingKey, Field> = {
  root: { about: 'Folder of the app inside the source; every command runs there.', ...path },
  kind: {
    about:
      'Serve files (`static`), run a server (`dynamic`), or decide from the source (`auto`, the default).',
    type: 'string',
    check: (value) =>
      KINDS.includes(String(value)) ? { value } : { problem: `is not one of ${KINDS.join(', ')}` },
    schema: { enum: KINDS },
  },
  install_command: { about: 'Runs first, instead of the detected install commands.', ...command },
  build_command: { about: 'Runs next, instead of the detected build commands.', ...command },
  run_command: {
    about: 'Starts the server; it must listen on `$PORT`. Makes the release dynamic.',
    ...command,
  },
  output_path: { about: 'What is packed after the build, relative to `root`.', ...path },
  port: { about: 'Port the server listens on when it does not follow `$PORT`.', ...integer(1, 65_535) },
  health_check_path: {
    about: 'Path that answers 2xx once the server is ready (default `/`).',
    type: 'string',
    check: (value) =>
      /^\/[\x21-\x7e]{0,2047}$/.test(String(value))
        ? { value }
        : { problem: 'does not start with / or holds spaces or other characters a URL path cannot have' },
    schema: { type: 'string', pattern: '^/', maxLength: 2048 },
  },
  startup_timeout_ms: {
    about: 'How long the first 2xx may take, in milliseconds (default 60000).',
    ...integer(1_000, 3_600_000),
  },
  entrypoint: {
    about: 'File the app starts from, relative to `root`, when the detector picks the wrong one.',
    ...path,
  },
  dockerfile: {
    about: 'Name of the Dockerfile in the build context, when it is another one (`docker/web.Dockerfile`).',
    ...path,
  },
  target: {
    about: 'Stage of the Dockerfile to build, when it is not the last one.',
    type: 'string',
    check: (value) =>
      /^[A-Za-z0-9][\w.-]{0,127}$/.test(String(value)) ? { value } : { problem: 'is no name of a stage' },
    schema: { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$' },
  },
  spa: {
    about: 'Static only: answer unknown page paths with index.html (`true`) or 404 (`false`).',
    type: 'boolean',
    check: (value) => ({ value }),
    schema: { type: 'boolean' },
  },
};

const KEYS = Object.keys(FIELDS) as SettingKey[];

/** What other tools call these settings. */
const ALIASES: Record<string, SettingKey> = {
  start: 'run_command',
  start_command: 'run_command',
  command: 'run_command',
  output: 'output_path',
  output_directory: 'output_path',
  publish: 'output_path',
  dist: 'output_path',
  base: 'root',
  health: 'health_check_path',
};

/** The known word closest to `word`, or null when nothing is close. */
export function nearest(word: string, known: readonly string[]): string | null {
  const plain = word
    .slice(0, 64)
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_');
  let best: { key: string; cost: number } | null = null;
  for (const key of known) {
    const cost =
      key.includes(plain) || plain.includes(key) ? Math.min(2, distance(plain, key)) : distance(plain, key);
    if (!best || cost < best.cost) best = { key, cost };
  }
  return best && best.cost <= Math.max(2, Math.floor(plain.length / 2)) ? best.key : null;
}

/** Edits between two words; two letters that changed places are one edit. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      let cost = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) cost = Math.min(cost, before[j - 2]! + 1);
      next.push(cost);
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

interface Place {
  source: PlanSource;
  /** How a field is named there, for messages. */
  name: (key: string) => string;
  values: Table;
}

/** Environment values are text; numbers and booleans are read out of it. */
function fromEnvironment(env: Record<string, string>, warnings: string[]): Table {
  const values: Table = {};
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith('KILN_')) continue;
    const key = name.slice('KILN_'.length).toLowerCase();
    const field = Object.hasOwn(FIELDS, key) ? FIELDS[key as SettingKey] : null;
    if (!field) {
      const meant = KEYS.find((known) => distance(key.slice(0, 64), known) <= 2);
      if (meant)
        warnings.push(`${name} is not a setting and was ignored; did you mean KILN_${meant.toUpperCase()}?`);
    } else if (field.type === 'integer' && /^\d{1,9}$/.test(text.trim())) values[key] = Number(text);
    else if (field.type === 'boolean' && /^(1|true|yes|on|0|false|no|off)$/i.test(text.trim()))
      values[key] = /^(1|true|yes|on)$/i.test(text.trim());
    else values[key] = text;
  }
  return values;
}

type Problem = { message: string; next_step: string };

/** kiln.toml and kiln.json of the first of `dirs` that has one. */
function fromFiles(files: SourceFiles, dirs: string[]): Place[] | Problem {
  for (const dir of dirs) {
    const places: Place[] = [];
    for (const source of ['kiln.toml', 'kiln.json'] as const) {
      const file = joinPath(dir, source)!;
      const text = files.read(file);
      if (text === null) continue;
      const parsed = source === 'kiln.toml' ? parseTomlTable(text) : parseJson(text);
      if (!parsed.ok) {
        return {
          message: `${file}${parsed.line === null ? '' : `:${parsed.line}`} cannot be read: ${parsed.problem}`,
          next_step: `Correct ${file}; docs/kiln-toml.md lists what it may hold.`,
        };
      }
      const { $schema: _, ...values } = parsed.value;
      places.push({ source, name: (key) => `\`${key}\` in ${file}`, values });
    }
    if (places.length > 0) return places;
  }
  return [];
}

function takeFrom(place: Place, settings: Table, sources: SettingSources): Problem | null {
  for (const [key, value] of Object.entries(place.values)) {
    if (!Object.hasOwn(FIELDS, key)) {
      const meant = Object.hasOwn(ALIASES, key) ? ALIASES[key] : nearest(key, KEYS);
      return {
        message: `${place.name(key)} is not a setting.`,
        next_step: meant ? `Did you mean \`${meant}\`?` : `The settings are: ${KEYS.join(', ')}.`,
      };
    }
    const name = key as SettingKey;
    const field = FIELDS[name];
    // Empty text means "not given": that is what form fields and shells send.
    if (value === undefined || value === null || value === '' || sources[name]) continue;
    const typed = field.type === 'integer' ? 'number' : field.type;
    const checked =
      typeof value === typed
        ? field.check(value as string | number | boolean)
        : { problem: `is not ${field.type === 'integer' ? 'a whole number' : `a ${field.type}`}` };
    if ('problem' in checked) {
      return { message: `${place.name(key)} ${checked.problem}.`, next_step: field.about };
    }
    if (checked.value === '') continue;
    settings[name] = checked.value;
    sources[name] = place.source;
  }
  return null;
}

/**
 * Settings of one publish. The settings file is looked for in the source root, and first in `root` when a request
 * or the environment names one. A wrong or unknown field is refused, with what was probably meant.
 */
export function readSettings(
  files: SourceFiles,
  overrides: PlanOverrides,
  env: Record<string, string>,
): SettingsResult {
  const warnings: string[] = [];
  const settings: Table = {};
  const sources: SettingSources = {};
  const given: Place[] = [
    { source: 'request', name: (key) => `\`${key}\``, values: { ...overrides } },
    {
      source: 'environment',
      name: (key) => `KILN_${key.toUpperCase()}`,
      values: fromEnvironment(env, warnings),
    },
  ];
  for (const place of given) {
    const problem = takeFrom(place, settings, sources);
    if (problem) return { ok: false, ...problem };
  }
  const root = (settings as Settings).root;
  const places = fromFiles(files, root && root !== '.' ? [root, '.'] : ['.']);
  if (!Array.isArray(places)) return { ok: false, ...places };
  for (const place of places) {
    const problem = takeFrom(place, settings, sources);
    if (problem) return { ok: false, ...problem };
  }
  return { ok: true, settings, sources, warnings };
}

/** JSON schema of kiln.json and kiln.toml, for editors. */
export function settingsSchema(): Record<string, unknown> {
  const properties = Object.entries(FIELDS).map(([key, { about, schema }]) => [
    key,
    { ...schema, description: about },
  ]);
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'kiln.toml, kiln.json',
    type: 'object',
    additionalProperties: false,
    properties: { $schema: { type: 'string' }, ...Object.fromEntries(properties) },
  };
}

/** A plan or a refusal as text for a person: what was found and where, what follows, what lost, what would change it. */
import type { Evidence, Plan } from '../domain/plan.ts';
import type { Refusal } from './plan.ts';

const INDENT = '  ';
/** Where a setting is written. */
const HOW = [
  'Settings, the strongest first: with the publish (--run-command …), KILN_* among the build variables',
  '(KILN_RUN_COMMAND=…), kiln.toml, kiln.json, and last what was detected: docs/kiln-toml.md.',
];

function section(title: string, lines: string[]): string[] {
  return lines.length === 0 ? [] : ['', title, ...lines.map((line) => INDENT + line)];
}

const place = ({ file, line }: Evidence): string => (line === null ? file : `${file}:${line}`);

/** Control characters of file names and manifests must not reach a terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const plain = (text: string): string => text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, '\uFFFD');

/** 'export …; exec node x' in its two parts: what makes programs findable, and the command a person would type. */
function split(command: string): { setup: string | null; shown: string } {
  const parts = /^((?:export [^;]*; )+)?(?:exec )?([\s\S]*)$/.exec(command)!;
  return { setup: parts[1]?.replace(/; $/, '') ?? null, shown: parts[2]! };
}

/** Rows for a list of commands; only the first has a title and says where it came from. */
function commandRows(title: string, commands: string[], from: string): [string, string][] {
  return commands.map((command, at) => [
    at === 0 ? title : '',
    split(command).shown + (at === 0 ? from : ''),
  ]);
}

/** The plan in words. No colours, ends without a newline. */
export function explainPlan(plan: Plan): string {
  const from = (field: string): string => {
    const source = plan.sources[field];
    return source && source !== 'detected'
      ? `   (from ${source === 'request' ? 'the request' : source})`
      : '';
  };
  const what = [
    plan.framework ?? (plan.ecosystem === 'static' ? null : plan.ecosystem),
    plan.kind === 'static' ? 'static site' : 'server',
  ]
    .filter(Boolean)
    .join(', ');
  const commands = [...plan.install, ...plan.build, ...(plan.start === null ? [] : [plan.start])];
  const setups = [...new Set(commands.flatMap((command) => split(command).setup ?? []))];
  const rows: [string, string][] = [
    ['mode', `${plan.mode}: ${plan.mode_reason}`],
    ['kind', `${what}${from('kind')}`],
    ...(plan.root === '.' ? [] : [['folder', `${plan.root}${from('root')}`] as [string, string]]),
    ...setups.map((setup, at): [string, string] => [
      at === 0 ? 'setup' : '',
      `${setup}   (before the commands below)`,
    ]),
    ...commandRows('install', plan.install, from('install')),
    ...commandRows('build', plan.build, from('build')),
    ...commandRows('start', plan.start === null ? [] : [plan.start], from('start')),
    ...(plan.kind === 'static' || (plan.mode === 'dockerfile' && plan.port === null)
      ? []
      : [['port', `${plan.port ?? 'the one in PORT'}${from('port')}`] as [string, string]]),
    [
      plan.mode === 'dockerfile' ? 'context' : 'output',
      `${plan.output_path === '.' ? 'the whole folder' : plan.output_path}${from('output_path')}`,
    ],
    ...(plan.spa_fallback === null
      ? []
      : [
          ['unknown', `pages are answered with ${plan.spa_fallback}${from('spa_fallback')}`] as [
            string,
            string,
          ],
        ]),
    ...(plan.kind === 'static'
      ? []
      : [
          [
            'healthy',
            `GET ${plan.health_check_path} answers 2xx within ${plan.startup_timeout_ms / 1000} s${from('health_check_path')}`,
          ] as [string, string],
        ]),
    ...plan.toolchains.map((tool): [string, string] => [
      'needs',
      `${tool.name}${tool.version === null ? '' : ` ${tool.version}`}${tool.source === null ? '' : `   (${tool.source})`}`,
    ]),
  ];
  const text = [
    ...rows.map(([name, value]) => `${name.padEnd(8)} ${value}`),
    ...section(
      'Because',
      plan.evidence.map((one) => `${place(one)}  ${one.found}: ${one.follows}`),
    ),
    ...section(
      'Also matched',
      plan.also_matched.map(({ rule, lost_because }) => `${rule}: ${lost_because}`),
    ),
    ...section('Watch out', plan.warnings),
    ...section('To change it', [...plan.would_change, ...HOW]),
  ];
  return plain(text.join('\n'));
}

/** The refusal in words. No colours, ends without a newline. */
export function explainRefusal(refusal: Refusal): string {
  const text = [
    refusal.message,
    refusal.next_step,
    ...section('Looked for', refusal.looked_for.length === 0 ? [] : wrapped(refusal.looked_for)),
    ...section(
      'Found',
      refusal.looked_for.length === 0
        ? []
        : refusal.found.length === 0
          ? ['nothing']
          : wrapped(refusal.found),
    ),
  ];
  return plain(text.join('\n'));
}

function wrapped(words: string[], width = 96): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 2 <= width)
      lines[lines.length - 1] = `${last}, ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** A plan or a refusal as text for a person: what was found and where, what follows, what lost, what would change it. */
import type { Evidence, Plan } from '../domain/plan.ts';
import type { Refusal } from './plan.ts';

const INDENT = '  ';

function section(title: string, lines: string[]): string[] {
  return lines.length === 0 ? [] : ['', title, ...lines.map((line) => INDENT + line)];
}

const place = ({ file, line }: Evidence): string => (line === null ? file : `${file}:${line}`);

/** Control characters of file names and manifests must not reach a terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const plain = (text: string): string => text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, '\uFFFD');

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
  const rows: [string, string][] = [
    ['mode', `${plan.mode}: ${plan.mode_reason}`],
    ['kind', `${what}${from('kind')}`],
    ...(plan.root === '.' ? [] : [['folder', `${plan.root}${from('root')}`] as [string, string]]),
    ...plan.install.map((command, at): [string, string] => [
      at === 0 ? 'install' : '',
      command + (at === 0 ? from('install') : ''),
    ]),
    ...plan.build.map((command, at): [string, string] => [
      at === 0 ? 'build' : '',
      command + (at === 0 ? from('build') : ''),
    ]),
    ...(plan.start === null ? [] : [['start', `${plan.start}${from('start')}`] as [string, string]]),
    ...(plan.kind === 'static' || plan.mode === 'dockerfile'
      ? []
      : [['port', `${plan.port ?? 'whatever PORT says'}${from('port')}`] as [string, string]]),
    ['output', `${plan.output_path === '.' ? 'the whole folder' : plan.output_path}${from('output_path')}`],
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
    ...section('To change it', plan.would_change),
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

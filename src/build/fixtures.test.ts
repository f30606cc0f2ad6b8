/**
 * Every app of test/fixtures/apps against its expected-plan.json, and docs/detect.md against them all.
 * After a change that is meant: `KILN_WRITE_FIXTURES=1 node --test src/build/fixtures.test.ts`, then read the diff.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import buildable from '../../test/fixtures/buildable.json' with { type: 'json' };
import type { Plan } from '../domain/plan.ts';
import { diskFiles } from './files.ts';
import { makePlan, type PlanResult } from './plan.ts';

const APPS = new URL('../../test/fixtures/apps/', import.meta.url);
const TABLE = new URL('../../docs/detect.md', import.meta.url);
const WRITE = Boolean(process.env.KILN_WRITE_FIXTURES);

const names = readdirSync(APPS).sort();
/** What fixtures.system.test.ts builds. */
const BUILT = new Set(Object.values(buildable).flat());

/** What a change of wording must not touch: explanations are left out. */
function important(result: PlanResult): unknown {
  if (!result.ok) {
    const { code, message, next_step } = result.refusal;
    return { refusal: { code, message, next_step } };
  }
  const { mode_reason: _, would_change: __, evidence, ...plan } = result.plan;
  return {
    ...plan,
    evidence: evidence.map(({ file, line, found }) => `${file}${line === null ? '' : `:${line}`} ${found}`),
  };
}

const results = new Map<string, PlanResult>();
const planOf = (name: string): PlanResult =>
  makePlan(diskFiles(new URL(name, APPS).pathname), { overrides: {} });

for (const name of names) {
  test(name, () => {
    const result = planOf(name);
    results.set(name, result);
    const text = `${JSON.stringify(important(result), null, 2)}\n`;
    const file = new URL(`${name}/expected-plan.json`, APPS);
    if (WRITE) writeFileSync(file, text);
    assert.equal(text, readFileSync(file, 'utf8'));
  });
}

test('docs/detect.md lists every app', () => {
  const summary = [...new Set(names.map(ecosystemOf))].sort().map((ecosystem) => {
    const apps = names.filter((name) => ecosystemOf(name) === ecosystem);
    const features = [...new Set(apps.flatMap(frameworkOf))].sort().join(', ');
    const built = apps.filter((name) => BUILT.has(name)).length;
    return `| ${ecosystem} | ${features} | ${apps.length} | ${built} |`;
  });
  const rows = names.map((name) => {
    const result = results.get(name)!;
    return `| ${name} | ${(result.ok ? [...describe(result.plan), BUILT.has(name) ? 'yes' : ''] : ['refused', '', '', result.refusal.next_step, '']).join(' | ')} |`;
  });
  const text = [
    '# What the detector knows',
    '',
    'Made from `test/fixtures/apps` by `src/build/fixtures.test.ts`; do not edit.',
    '',
    'Planned: the plan is compared with `expected-plan.json` in every test run. Built: installed, built, started and asked for a',
    'page by `src/build/fixtures.system.test.ts`, where the tools and registries are reachable (`KILN_APPS=all` for all of them).',
    'The list is `test/fixtures/buildable.json`.',
    '',
    '| ecosystem | frameworks | planned | built |',
    '| --- | --- | --- | --- |',
    ...summary,
    '',
    '| app | ecosystem | mode | release | starts with, or serves | built |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n');
  if (WRITE) writeFileSync(TABLE, text);
  assert.equal(unaligned(text), unaligned(readFileSync(TABLE, 'utf8')));
});

function ecosystemOf(name: string): string {
  const result = results.get(name)!;
  return result.ok ? (result.plan.ecosystem ?? 'commands of the author') : 'refused, with what to do';
}

function frameworkOf(name: string): string[] {
  const result = results.get(name)!;
  return result.ok && result.plan.framework ? [result.plan.framework] : [];
}

/** The formatter aligns the columns. */
const unaligned = (table: string): string => table.replace(/ +/g, ' ').replace(/-{3,}/g, '---');

function describe(plan: Plan): string[] {
  const name = [plan.ecosystem ?? '', plan.framework].filter(Boolean).join(' / ');
  const what =
    plan.kind === 'static'
      ? `\`${plan.output_path}\``
      : plan.start === null
        ? 'the image'
        : `\`${lastCommand(plan.start)}\``;
  return [name, plan.mode, plan.kind, what.replaceAll('|', '\\|')];
}

/** Without the part that only sets the PATH. */
const lastCommand = (start: string): string => start.replace(/^export [^;]*; /, '').replace(/^exec /, '');

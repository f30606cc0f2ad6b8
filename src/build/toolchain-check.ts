/**
 * Whether a machine has the tool versions that a plan asks for. Pure. What an ecosystem's own tool can fetch is
 * written into the plan (Node comes from npm, Go fetches itself); what cannot be had is a refusal, never another
 * version in silence.
 */
import semver from 'semver';
import type { Plan, Toolchain } from '../domain/plan.ts';
import { joinPath } from './files.ts';
import { quote } from './quote.ts';
import { fullVersion, versionRange } from './version-range.ts';

/** A tool that the machine offers; one with `bin_dir` only to those who put that folder first in PATH. */
export interface OfferedTool {
  name: string;
  version: string;
  bin_dir?: string;
}

export type ToolchainCheck =
  | {
      ok: true;
      /** The plan to carry out: the given one, with what has to be fetched first. */
      plan: Plan;
      warnings: string[];
    }
  | { ok: false; message: string; next_step: string };

type Verdict = { warning?: string; fetch?: string } | { message: string; next_step: string };

/** npm of the host may not run on an old Node; the one of its own time does. */
const NPM_OF_NODE: [major: number, npm: string][] = [
  [14, '6'],
  [16, '8'],
  [18, '10'],
];
/** Since this version Go fetches the toolchain that go.mod asks for. */
const GO_FETCHES_SINCE = '1.21.0';

/**
 * Compares what the plan asks for with what is offered. `looked_for` names the tools that the machine was searched
 * for: one that is not among them is left to the build.
 */
export function checkToolchains(
  plan: Plan,
  offered: readonly OfferedTool[],
  looked_for: readonly string[] = offered.map(({ name }) => name),
): ToolchainCheck {
  const warnings: string[] = [];
  let checked = plan;
  for (const tool of plan.toolchains) {
    const here = bestOf(
      tool,
      offered.filter(({ name }) => name === tool.name),
    );
    const verdict = judge(tool, here, looked_for.includes(tool.name));
    if ('message' in verdict) return { ok: false, ...verdict };
    if (verdict.warning) warnings.push(verdict.warning);
    if (verdict.fetch !== undefined) checked = withNode(checked, verdict.fetch);
    else if (here?.bin_dir !== undefined) checked = withTool(checked, here);
  }
  return { ok: true, plan: checked, warnings };
}

/** The first that is asked for: the one PATH finds comes first among equals. */
function bestOf(tool: Toolchain, offered: OfferedTool[]): OfferedTool | null {
  const usual = offered.toSorted((a, b) => Number(a.bin_dir !== undefined) - Number(b.bin_dir !== undefined));
  const range = tool.version === null ? null : versionRange(tool.name, tool.version);
  const fits = usual.find(({ version }) => {
    const full = fullVersion(version);
    return range !== null && full !== null && semver.satisfies(full, range);
  });
  return fits ?? usual.find(({ bin_dir }) => bin_dir === undefined) ?? null;
}

function judge(tool: Toolchain, here: OfferedTool | null, looked_for: boolean): Verdict {
  const { name, version: wanted } = tool;
  const asked = `${name}${wanted === null ? '' : ` ${wanted}`}`;
  const by = tool.source === null ? 'The plan' : tool.source;
  if (here === null) {
    if (!looked_for) return {};
    return {
      message: `${by} needs ${asked}, and ${name} is not installed on the machine that builds.`,
      next_step: `Install ${name} there (\`kiln doctor\` lists what is found), or give commands that do without it.`,
    };
  }
  if (wanted === null) return {};
  const range = versionRange(name, wanted);
  const version = fullVersion(here.version);
  if (range === null || version === null) {
    return {
      message: `${by} asks for ${asked}, which Kiln cannot compare with the ${here.version} on the machine that builds.`,
      next_step: `Write a version such as ${here.version} into ${tool.source ?? 'the source'}.`,
    };
  }
  if (semver.satisfies(version, range)) return {};
  return fetched(tool, range, version) ?? nearlyHad(tool, range, version) ?? missing(tool, here.version);
}

/** What the ecosystem's own tool brings. */
function fetched(tool: Toolchain, range: string, version: string): Verdict | null {
  if (tool.name === 'node') {
    const what = semver.valid(tool.version)
      ? ''
      : ' A range may mean a newer one in a later build; name an exact version to fix it.';
    return {
      fetch: range,
      warning: `${tool.source ?? 'The plan'} asks for Node ${tool.version}; the machine has ${version}, so the build fetches it from npm.${what}`,
    };
  }
  if (tool.name !== 'go' || semver.lt(version, GO_FETCHES_SINCE)) return null;
  return {
    warning: `${tool.source} asks for Go ${tool.version}; the machine has ${version}, so Go fetches it through the module proxy.`,
  };
}

/** Another patch of the minor version that was pinned: nearly the same program, and said so. */
function nearlyHad(tool: Toolchain, range: string, version: string): Verdict | null {
  const pinned = /^v?\d+\.\d+\.\d+$/.test(range.trim()) ? range.trim() : null;
  if (pinned === null || !semver.satisfies(version, `~${pinned.split('.').slice(0, 2).join('.')}`))
    return null;
  return {
    warning: `${tool.source} pins ${tool.name} ${tool.version}; the build uses ${version}, which differs in the patch level only.`,
  };
}

function missing(tool: Toolchain, version: string): Verdict {
  const file = tool.source ?? 'the source';
  return {
    message: `${file} asks for ${tool.name} ${tool.version}, and the machine that builds has ${version}.`,
    next_step: `Install ${tool.name} ${tool.version} there, or ask for a version that ${version} satisfies in ${file}.`,
  };
}

/** Put before every command: the folder of a version that PATH does not find first. */
function withFirst(plan: Plan, dirs: string[]): Plan {
  const first = `export PATH="${dirs.map((dir) => `${dir}:`).join('')}$PATH"`;
  const before = (command: string) => `${first}; ${command}`;
  return {
    ...plan,
    install: plan.install.map(before),
    build: plan.build.map(before),
    start: plan.start === null ? null : before(plan.start),
  };
}

/** The plan with a version of a tool that the machine has beside its usual one. */
function withTool(plan: Plan, { name, version, bin_dir }: OfferedTool): Plan {
  const found = {
    file: bin_dir!,
    line: null,
    found: `${name} ${version}`,
    follows: 'used, as the app asks for it',
  };
  return { ...withFirst(plan, [bin_dir!]), evidence: [...plan.evidence, found] };
}

/**
 * The plan with Node in a version of its own, in `.kiln/runtime` of the app's folder (`.kiln/tools` is left out of
 * releases): the package of this platform that the package `node` would choose, taken directly because install scripts
 * may be forbidden.
 */
function withNode(plan: Plan, range: string): Plan {
  const major = semver.minVersion(range)?.major ?? 0;
  const npm = NPM_OF_NODE.find(([last]) => major <= last);
  const packages = [
    `"node@npm:node-$(node -p 'process.platform + "-" + process.arch')@"${quote(range)}`,
    ...(npm ? [`npm@${npm[1]}`] : []),
  ];
  const prefix = '.kiln/runtime/node';
  const fetch = `mkdir -p ${prefix} && npm install --no-audit --no-fund --no-save --prefix ${prefix} ${packages.join(' ')}`;
  const with_path = withFirst(plan, [
    `$PWD/${prefix}/node_modules/node/bin`,
    `$PWD/${prefix}/node_modules/.bin`,
  ]);
  return {
    ...with_path,
    install: [fetch, ...with_path.install],
    evidence: [
      ...plan.evidence,
      {
        file: joinPath(plan.root, '.kiln/runtime') ?? '.kiln/runtime',
        line: null,
        found: `Node ${range}`,
        follows: 'fetched from npm, because the machine has another one',
      },
    ],
  };
}

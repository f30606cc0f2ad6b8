/** The detectors in order, and which of those that match decides. */
import type { App, ManifestProblem } from './app.ts';
import { deno } from './deno.ts';
import type { Detection, Detector, Stuck } from './detector.ts';
import { dotnet } from './dotnet.ts';
import { elixir } from './elixir.ts';
import { go } from './go.ts';
import { java } from './java.ts';
import { node } from './node.ts';
import { php } from './php.ts';
import { portInCommand } from './port.ts';
import { ANOTHER_START, procfile, unusedProcesses, webProcess } from './procfile.ts';
import { python } from './python.ts';
import { ruby } from './ruby.ts';
import { rust } from './rust.ts';
import { shell } from './shell.ts';
import { staticSite } from './static.ts';

/** Earlier wins among equals. Adding an ecosystem: one file, one line here, a fixture, `docs/detect.md`. */
export const DETECTORS: Detector[] = [
  node,
  deno,
  python,
  go,
  elixir,
  ruby,
  php,
  java,
  rust,
  dotnet,
  procfile,
  shell,
  staticSite,
];

export interface Lost {
  rule: string;
  lost_because: string;
}

export interface Detected {
  detection: Detection | null;
  also_matched: Lost[];
  /** Ecosystems that are there, with what their author has to say. */
  stuck: (Stuck & { rule: string })[];
  problems: ManifestProblem[];
}

/** `web:` of a Procfile, a start script of another language or a lone file lose to an ecosystem. */
const LAST_RESORT = new Set(['procfile', 'shell', 'static']);

/** Whose files these are: an entrypoint that is set says which ecosystem is meant. */
const OWNERS: Record<string, string[]> = {
  py: ['python'],
  go: ['go'],
  rb: ['ruby'],
  php: ['php'],
  rs: ['rust'],
  exs: ['elixir'],
  csproj: ['dotnet'],
  fsproj: ['dotnet'],
  sh: ['shell'],
  ...Object.fromEntries(['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'].map((name) => [name, ['node', 'deno']])),
};

const ownersOf = (app: App): string[] =>
  OWNERS[app.entrypoint?.slice(app.entrypoint.lastIndexOf('.') + 1) ?? ''] ?? [];

/**
 * Asks every detector. A server beats a site that is built beside it (Rails with a Vite front end is a Rails app);
 * otherwise the order of the list decides.
 */
export function detectApp(app: App): Detected {
  const found: { rule: string; detection: Detection }[] = [];
  const stuck: Detected['stuck'] = [];
  for (const { name, detect } of DETECTORS) {
    const result = detect(app);
    if (!result) continue;
    if ('stuck' in result) stuck.push({ ...result, rule: name });
    else found.push({ rule: name, detection: result });
  }
  const ecosystems = found.filter(({ rule }) => !LAST_RESORT.has(rule));
  // An ecosystem that is there but not understood must not be packed as files, or run by a script meant for it.
  const usable =
    ecosystems.length > 0 || stuck.length === 0 ? found : found.filter(({ rule }) => rule !== 'static');
  const owners = ownersOf(app);
  const winner =
    usable.find(({ rule }) => owners.includes(rule)) ??
    usable.find(({ rule, detection }) => !LAST_RESORT.has(rule) && detection.kind === 'dynamic') ??
    usable[0] ??
    null;
  const also_matched = found
    .filter((one) => one !== winner)
    .map(({ rule, detection }) => ({
      rule,
      lost_because:
        winner && owners.includes(winner.rule)
          ? `entrypoint names a file of ${winner.rule}.`
          : lossOf(rule, detection, winner),
    }));
  const decided = winner && withProcfile(app, winner.rule, winner.detection);
  return { detection: decided, also_matched, stuck, problems: app.problems };
}

function lossOf(
  rule: string,
  detection: Detection,
  winner: { rule: string; detection: Detection } | null,
): string {
  if (!winner) return 'Source that is not understood is never served as files.';
  if (rule === 'procfile') return `The Procfile only says how the ${winner.rule} app starts.`;
  if (LAST_RESORT.has(rule)) return `It is used only when no ecosystem is found, and ${winner.rule} is.`;
  if (detection.kind === 'static' && winner.detection.kind === 'dynamic')
    return `A server (${winner.rule}) beats a site beside it.`;
  return `${winner.rule} comes first in the order of detectors; \`root\` or run_command chooses otherwise.`;
}

/** The author's own start line beats what was worked out. */
function withProcfile(app: App, rule: string, detection: Detection): Detection {
  const web = rule === 'procfile' || detection.kind === 'static' ? null : webProcess(app);
  if (!web) return detection;
  const start = detection.setup ? `${detection.setup}; ${web.command}` : web.command;
  const evidence = [...detection.evidence, web.evidence];
  const port = portInCommand(web.command);
  const warnings = [...detection.warnings, ...unusedProcesses(app)];
  return { ...detection, start, port, evidence, warnings, would_change: [ANOTHER_START] };
}

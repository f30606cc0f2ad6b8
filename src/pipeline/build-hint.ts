/** What the last lines of a build log mean, for failures that many people meet: the next step in place of "read the log". */
import { missingLeftOut, takeBackIn } from '../domain/left-out.ts';
import { missingBuildVariable } from '../domain/missing-variable.ts';

const AND_PUBLISH = 'and publish again. Production is unchanged.';

const HINTS: [RegExp, string][] = [
  [
    /can only install packages when your package\.json and package-lock\.json|are in sync|npm (?:ERR!|error) code EUSAGE/i,
    `package-lock.json does not fit package.json: run \`npm install\`, commit the lockfile, ${AND_PUBLISH}`,
  ],
  [
    /ERR_PNPM_OUTDATED_LOCKFILE/,
    `pnpm-lock.yaml does not fit package.json: run \`pnpm install\`, commit the lockfile, ${AND_PUBLISH}`,
  ],
  [
    /lockfile needs to be updated|lockfile would have been modified|YN0028/,
    `yarn.lock does not fit package.json: run \`yarn install\`, commit the lockfile, ${AND_PUBLISH}`,
  ],
  [
    /lockfile had changes, but lockfile is frozen/,
    `bun.lock does not fit package.json: run \`bun install\`, commit the lockfile, ${AND_PUBLISH}`,
  ],
  [
    /lockfile at `uv\.lock` needs to be updated/,
    `uv.lock does not fit pyproject.toml: run \`uv lock\`, commit the lockfile, ${AND_PUBLISH}`,
  ],
  [
    /changed significantly since poetry\.lock was last generated|poetry\.lock is not up to date with pyproject/,
    `poetry.lock does not fit pyproject.toml: run \`poetry lock\`, commit the lockfile, ${AND_PUBLISH}`,
  ],
  [
    /\bETARGET\b|No matching version found for/,
    `A version that package.json or its lockfile names is not in the registry (the log says which): correct it, ${AND_PUBLISH}`,
  ],
  [
    /npm (?:ERR!|error) (?:code E404|404 Not Found)|ERR_PNPM_FETCH_404|No matching distribution found for/,
    `A package is not in the registry under the name and version that is asked for, or it is private (the log says which): correct it, ${AND_PUBLISH}`,
  ],
  [
    /\bERESOLVE\b/,
    `The packages ask for versions of each other that do not fit (ERESOLVE; the log says which): change one of the versions, or put a line legacy-peer-deps=true into .npmrc, ${AND_PUBLISH}`,
  ],
  [
    /requires a minimum Node\.js version|Unsupported engine|The engine "node" is incompatible|requires Node(?:\.js)? (?:version )?[v>=^~]*\d|Node\.js v?[\d.]+ is required|Please upgrade (?:your )?Node/i,
    `Something in the build asks for another Node version (the log says which): name it in a file .nvmrc, or in engines.node of package.json, ${AND_PUBLISH}`,
  ],
];

/** The way out of a build, of a host that it could not lead to. */
const UNREACHABLE = /^\[kiln\] network: (\S+) (?:could not be reached|is refused)/;

/** Null when nothing in the log is known. The first line that is known decides: later ones follow from it. */
export function buildHint(log: readonly string[]): { line: string; next_step: string } | null {
  for (const line of log) {
    const hint = HINTS.find(([what]) => what.test(line.slice(0, 1000)));
    if (hint) return { line, next_step: hint[1] };
  }
  for (const line of log) {
    const left_out = missingLeftOut([line]);
    if (left_out === null) continue;
    const said = `The log says that ${left_out.path} cannot be found.`;
    return { line, next_step: `${said} ${takeBackIn(left_out.folder)}` };
  }
  for (const line of log) {
    const variable = missingBuildVariable(line);
    if (variable !== null)
      return {
        line,
        next_step: `The log says that ${variable} is missing: set it with \`kiln env set NAME ${variable}=… --build\` (builds see only variables set with --build), ${AND_PUBLISH}`,
      };
  }
  const line = log.find((one) => UNREACHABLE.test(one));
  if (line === undefined) return null;
  return {
    line,
    next_step: `The build could not reach ${UNREACHABLE.exec(line)![1]}, which may be why it failed (\`kiln logs\` says more): make it reachable or the build do without it, ${AND_PUBLISH}`,
  };
}

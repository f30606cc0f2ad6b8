/** Deno: tasks and entry files. Deno itself comes from npm, so nothing but Node has to be there. */
import { stringAt } from '../manifest.ts';
import { quote } from '../quote.ts';
import { type App, versionFile } from './app.ts';
import { type Detector, detection } from './detector.ts';
import { fixedPort, fixedPortNotes } from './port.ts';

const DENO = '2.6.3';
const SETUP = 'export PATH="$PWD/.kiln/runtime/node_modules/.bin:$PATH" DENO_DIR="$PWD/.kiln/deno"';
const ENTRIES = ['main', 'server', 'mod', 'index', 'app'].flatMap((name) =>
  ['ts', 'js', 'tsx'].flatMap((extension) => [`${name}.${extension}`, `src/${name}.${extension}`]),
);
const PORT_IN_CODE = /\bport\s*[:=]\s*(\d{2,5})\b/i;
const READS_PORT = /env\.get\(\s*['"]PORT['"]/;

export const deno: Detector = {
  name: 'deno',
  looks_for: ['deno.json', 'deno.jsonc'],
  detect: (app) => {
    const file = app.first('deno.json', 'deno.jsonc');
    const config = file ? app.jsonc(file) : null;
    const task = file ? (stringAt(config, 'tasks', 'start') ?? stringAt(config, 'tasks', 'serve')) : null;
    const entry = entryOf(app, file !== null, task);
    if (!file && !entry) return null;
    if (!entry && !task) {
      return {
        stuck: `${file} is there, but no start task and no main.ts.`,
        next_step: 'Add a "start" task, or name the file with entrypoint.',
        evidence: file ? [app.evidence(file, file, 'this is a Deno app')] : [],
      };
    }
    const serves =
      entry !== null &&
      app.search([entry], /^export default\b/) !== null &&
      app.search([entry], /Deno\.serve/) === null;
    const build = stringAt(config, 'tasks', 'build') === null ? [] : [`${SETUP}; deno task build`];
    const cache = entry ? [`${SETUP}; deno cache ${quote(entry)}`] : [];
    // Deno.serve does not read PORT by itself, but DENO_SERVE_ADDRESS outranks any port in the code.
    const told = entry === null || serves || app.search([entry], /\bDeno\.serve\b/) !== null;
    const fixed = fixedPortNotes(
      app,
      entry && !told ? fixedPort(app, [entry], { written: [PORT_IN_CODE], reads_port: READS_PORT }) : null,
    );
    const start = task
      ? 'exec deno task start'
      : serves
        ? `exec deno serve -A --host 0.0.0.0 --port "$PORT" ${quote(entry!)}`
        : `exec deno run -A ${quote(entry!)}`;
    return detection({
      ecosystem: 'deno',
      framework:
        file && app.line(file, /fresh/) !== null
          ? 'fresh'
          : file && app.line(file, /hono/) !== null
            ? 'hono'
            : null,
      kind: 'dynamic',
      install: [
        `npm install --no-audit --no-fund --no-save --prefix .kiln/runtime deno@${denoVersion(app)}`,
        ...cache,
      ],
      build,
      start: `${SETUP}; export DENO_SERVE_ADDRESS="tcp:0.0.0.0:$PORT"; ${task && stringAt(config, 'tasks', 'start') === null ? 'exec deno task serve' : start}`,
      setup: SETUP,
      port: fixed.port,
      // The machine's own certificates too: a registry behind a proxy has one of those.
      build_env: { DENO_TLS_CA_STORE: 'mozilla,system' },
      run_env: { DENO_NO_UPDATE_CHECK: '1', DENO_TLS_CA_STORE: 'mozilla,system' },
      toolchains: [{ name: 'node', version: null, source: null }],
      evidence: [
        ...(file
          ? [
              app.evidence(
                file,
                task ? `task: ${task.slice(0, 100)}` : file,
                'this is a Deno app',
                task ? '"tasks"' : undefined,
              ),
            ]
          : []),
        ...(entry
          ? [app.evidence(entry, entry, 'the server starts here', /Deno\.serve|export default/)]
          : []),
        ...fixed.evidence,
      ],
      would_change: [
        'A "start" task in deno.json, or run_command, starts something else; entrypoint names another file.',
      ],
      warnings: fixed.warnings,
    });
  },
};

/** The pinned version, when it is a full one. */
function denoVersion(app: App): string {
  const pin = (versionFile(app, 'deno', '.dvmrc', '.deno-version') ?? app.pinned('deno'))?.version?.replace(
    /^v/,
    '',
  );
  return pin && /^\d+\.\d+\.\d+$/.test(pin) ? pin : DENO;
}

function entryOf(app: App, configured: boolean, task: string | null): string | null {
  const asked = app.entrypoint;
  if (asked && /\.[cm]?[jt]sx?$/.test(asked) && app.read(asked) !== null) {
    if (configured || app.search([asked], /\bDeno\./)) return asked;
  }
  const run = /([\w./-]{1,200}\.[jt]sx?)(?:\s|$)/.exec(task ?? '')?.[1] ?? null;
  if (run !== null && app.exists(run)) return run;
  return (
    ENTRIES.find(
      (file) => app.exists(file) && (configured || app.search([file], /\bDeno\.serve\b/) !== null),
    ) ?? null
  );
}

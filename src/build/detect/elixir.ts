/** Elixir: mix projects with and without packages, Phoenix releases, and single scripts. */
import { quote } from '../quote.ts';
import { type App, versionFile } from './app.ts';
import { type Detector, detection } from './detector.ts';
import { fixedPort, fixedPortNotes } from './port.ts';

const PORT_IN_CODE = /\bport\s*[:=]\s*(\d{2,5})\b|\.listen\(\s*(\d{2,5})\b/;
const READS_PORT = /"PORT"/;
const SCRIPTS = ['server.exs', 'app.exs', 'main.exs', 'run.exs'];

export const elixir: Detector = {
  name: 'elixir',
  looks_for: ['mix.exs', 'server.exs'],
  detect: (app) => (app.exists('mix.exs') ? detectProject(app) : detectScript(app)),
};

function detectProject(app: App) {
  const name = app.search(['mix.exs'], /\bapp:\s*:(\w{1,100})/)?.match[1] ?? null;
  const packages =
    app.line('mix.exs', /\{\s*:\w+\s*,/) !== null &&
    app.search(['mix.exs'], /^\s*\{\s*:\w+\s*,\s*(?:"|git:|github:|path:|~)/) !== null;
  const phoenix = app.line('mix.exs', /\{\s*:phoenix\s*,/);
  const files = app.code(['ex', 'exs']).filter((file) => file !== 'mix.exs');
  const fixed = fixedPortNotes(
    app,
    fixedPort(app, files, { written: [PORT_IN_CODE], reads_port: READS_PORT }),
  );
  const assets = app.line('mix.exs', /"assets\.deploy"/) !== null;
  const release = phoenix !== null || app.line('mix.exs', /\breleases:/) !== null;
  const hex = 'mix local.hex --force --if-missing && mix local.rebar --force --if-missing';
  return detection({
    ecosystem: 'elixir',
    framework: phoenix === null ? null : 'phoenix',
    kind: 'dynamic',
    install: packages ? [hex, 'mix deps.get --only prod'] : [],
    build: [
      'mix compile',
      ...(assets ? ['mix assets.deploy'] : []),
      ...(release ? ['mix release --overwrite'] : []),
      // What mix notes for its next compilation differs from build to build.
      'rm -rf _build/prod/lib/*/.mix',
    ],
    start:
      release && name
        ? `exec ${quote(`_build/prod/rel/${name}/bin/${name}`)} start`
        : 'exec mix run --no-halt --no-compile',
    port: fixed.port,
    build_env: { MIX_ENV: 'prod' },
    run_env: { MIX_ENV: 'prod', ...(phoenix === null ? {} : { PHX_SERVER: 'true' }) },
    toolchains: [elixirVersion(app)],
    evidence: [
      app.evidence('mix.exs', `mix project ${name ?? ''}`.trim(), 'this is an Elixir app', /\bapp:/),
      ...(phoenix === null
        ? []
        : [{ ...app.evidence('mix.exs', 'depends on phoenix', 'built as a release'), line: phoenix }]),
      ...fixed.evidence,
    ],
    would_change: [
      release
        ? 'run_command starts something else than the release.'
        : '`releases:` in mix.exs builds a release; run_command starts something else.',
    ],
    warnings: [
      ...fixed.warnings,
      ...(phoenix === null
        ? []
        : ['Phoenix needs SECRET_KEY_BASE (and DATABASE_URL with Ecto): set them with `kiln env set`.']),
    ],
  });
}

function detectScript(app: App) {
  const asked = app.entrypoint?.endsWith('.exs') ? app.first(app.entrypoint) : null;
  const entry = asked ?? SCRIPTS.find((file) => app.exists(file));
  if (!entry) return null;
  const fixed = fixedPortNotes(
    app,
    fixedPort(app, [entry], { written: [PORT_IN_CODE], reads_port: READS_PORT }),
  );
  return detection({
    ecosystem: 'elixir',
    kind: 'dynamic',
    start: `exec elixir --no-halt ${quote(entry)}`,
    port: fixed.port,
    toolchains: [elixirVersion(app)],
    evidence: [app.evidence(entry, entry, 'this script is run'), ...fixed.evidence],
    warnings: fixed.warnings,
  });
}

function elixirVersion(app: App) {
  const pinned = app.pinned('elixir') ?? versionFile(app, 'elixir', '.elixir-version');
  if (pinned) return pinned;
  const named = app.search(['mix.exs'], /\belixir:\s*"([^"]{1,50})"/)?.match[1] ?? null;
  return { name: 'elixir', version: named, source: named === null ? null : 'mix.exs' };
}

/** Go: modules and workspaces, one binary built from the right `main` package. */
import type { Toolchain } from '../../domain/plan.ts';
import { quote } from '../quote.ts';
import { type App, versionFile } from './app.ts';
import { type Detector, detection } from './detector.ts';
import { healthRoute } from './health.ts';
import { fixedPort, fixedPortNotes } from './port.ts';

const FRAMEWORKS: [string, string][] = [
  ['github.com/gin-gonic/gin', 'gin'],
  ['github.com/labstack/echo', 'echo'],
  ['github.com/gofiber/fiber', 'fiber'],
  ['github.com/go-chi/chi', 'chi'],
  ['github.com/gorilla/mux', 'gorilla'],
];
const PORT_IN_CODE =
  /(?:ListenAndServe|\.Run|\.Start|\.Listen|Addr:|addr\s*:?=|net\.Listen\(\s*"tcp"\s*,|ListenAddr\w*|[Pp]ort\s*:?=)\s*\(?\s*"?[\w.]*:?(\d{2,5})"/;
const READS_PORT = /"PORT"|\.Run\(\s*\)/;
const MAIN = /^package main\b/;
const IGNORED = /^\/\/go:build ignore|^\/\/ \+build ignore/;

/** Folders of `package main`, the root first. */
function mainPackages(app: App): string[] {
  const dirs = new Set<string>();
  for (const file of app.code(['go'], 3)) {
    if (file.endsWith('_test.go') || app.search([file], IGNORED)) continue;
    const dir = file.includes('/') ? file.slice(0, file.lastIndexOf('/')) : '.';
    if (!dirs.has(dir) && app.search([file], MAIN)) dirs.add(dir);
  }
  return [...dirs];
}

/** The files of the root's program; one that is for another tool says so by its build tag. */
const rootFiles = (app: App): string[] =>
  app
    .code(['go'], 0)
    .filter((file) => !file.endsWith('_test.go') && !app.search([file], IGNORED) && app.search([file], MAIN));

const USUAL = ['server', 'web', 'api', 'app', 'http', 'main'];

/** The package to build: the setting, the root, the only one, the one named like the module, or a usual name. */
function choose(app: App, mains: string[], module: string): { dir: string; why: string } | null {
  const asked = app.entrypoint?.replace(/\/?[^/]*\.go$/, '') || null;
  if (app.entrypoint) {
    const dir = asked ?? '.';
    if (mains.includes(dir)) return { dir, why: 'the entrypoint setting' };
  }
  if (mains.includes('.')) return { dir: '.', why: 'the root package' };
  if (mains.length === 1) return { dir: mains[0]!, why: 'the only main package' };
  const last = module
    .replace(/\/v\d+$/, '')
    .split('/')
    .at(-1)!;
  for (const name of [last, ...USUAL]) {
    const dir = mains.find((one) => one.split('/').at(-1) === name);
    if (dir) return { dir, why: `its name, ${name}` };
  }
  return null;
}

export const go: Detector = {
  name: 'go',
  looks_for: ['go.mod', 'go.work', 'main.go'],
  detect: (app) => {
    const manifest = app.first('go.mod', 'go.work');
    const mains = mainPackages(app);
    if (!manifest && !mains.includes('.')) return null;
    const text = (manifest && app.read(manifest)?.slice(0, 64 * 1024)) ?? '';
    const module = /^module\s+"?([^\s"]+)/m.exec(text)?.[1] ?? 'app';
    const chosen = choose(app, mains, module);
    const evidence = manifest
      ? [app.evidence(manifest, `module ${module}`, 'this is a Go program', /^module\b/)]
      : [];
    if (!chosen) {
      const which =
        mains.length === 0
          ? 'no main package is in it'
          : `${mains.length} main packages are in it: ${mains.slice(0, 20).join(', ')}`;
      return {
        stuck: `This is a Go module, but ${which}.`,
        next_step: `Name one with entrypoint, for example entrypoint = "${mains[0] ?? 'cmd/server'}".`,
        evidence,
      };
    }
    const [used, framework] = FRAMEWORKS.find(([name]) => text.includes(name)) ?? [null, null];
    const files = app.code(['go'], 3).filter((file) => !file.endsWith('_test.go'));
    const inside = files.filter((file) => chosen.dir === '.' || file.startsWith(`${chosen.dir}/`));
    const fixed = fixedPortNotes(
      app,
      fixedPort(app, [...new Set([...inside, ...files])], {
        written: [PORT_IN_CODE],
        reads_port: READS_PORT,
      }),
    );
    const health = healthRoute(app, [...new Set([...inside, ...files])]);
    const cgo = app.search(files, /^\s*(?:import\s+)?"C"\s*$/);
    const main = inside.find((file) => app.search([file], MAIN)) ?? chosen.dir;
    const vendored = app.exists('vendor/modules.txt') ? ' -mod=vendor' : '';
    const target = chosen.dir === '.' ? '.' : quote(`./${chosen.dir}`);
    // Without a module the program is the files themselves, all of them.
    const built_from = manifest ? target : rootFiles(app).map(quote).join(' ');
    // go.work is enough to find the modules; their downloads then happen in the build itself.
    const install = manifest === 'go.mod' && !vendored && /^require\b/m.test(text) ? ['go mod download'] : [];
    return detection({
      ecosystem: 'go',
      framework,
      kind: 'dynamic',
      install,
      build: [
        `mkdir -p .kiln/bin && go build${vendored} -trimpath -buildvcs=false -ldflags=-s -o .kiln/bin/app ${built_from}`,
      ],
      start: 'exec ./.kiln/bin/app',
      port: fixed.port,
      health_check_path: health?.path ?? null,
      // A module cache that is read-only cannot be cleaned up after the build.
      build_env: {
        GOFLAGS: '-modcacherw',
        GOTOOLCHAIN: goToolchain(app),
        ...(cgo ? { CGO_ENABLED: '1' } : {}),
      },
      run_env: framework === 'gin' ? { GIN_MODE: 'release' } : {},
      toolchains: [goVersion(app, text), ...(cgo ? [{ name: 'gcc', version: null, source: cgo.file }] : [])],
      evidence: [
        ...evidence,
        app.evidence(main, `package main in ${chosen.dir}`, `built because of ${chosen.why}`, MAIN),
        ...(used && manifest
          ? [app.evidence(manifest, `depends on ${used}`, `the framework is ${framework}`, used)]
          : []),
        ...(cgo
          ? [
              {
                ...app.evidence(cgo.file, 'import "C"', 'built with cgo, which needs a C compiler'),
                line: cgo.line,
              },
            ]
          : []),
        ...fixed.evidence,
        ...(health ? [health.evidence] : []),
      ],
      would_change: ['entrypoint names the folder of another main package, such as cmd/api.'],
      warnings: fixed.warnings,
    });
  },
};

/** An exact pin of a version manager, then what go.mod needs at least. */
function goVersion(app: App, text: string): Toolchain {
  const pinned = goPin(app);
  if (pinned) return pinned;
  const named =
    /^toolchain\s+go(\d+\.\d+(?:\.\d+)?)/m.exec(text)?.[1] ?? /^go\s+(\d+\.\d+(?:\.\d+)?)/m.exec(text)?.[1];
  if (!named) return { name: 'go', version: null, source: null };
  return { name: 'go', version: `>=${named}`, source: app.first('go.mod', 'go.work') };
}

const goPin = (app: App): Toolchain | null => versionFile(app, 'go', '.go-version') ?? app.pinned('go');

/** Go fetches what go.mod asks for (`auto`), whatever the host's setting; a full pin is fetched exactly. */
function goToolchain(app: App): string {
  const version = goPin(app)?.version?.replace(/^go/, '') ?? '';
  return /^\d+\.\d+\.\d+$/.test(version) ? `go${version}` : 'auto';
}

/** Python: ASGI and WSGI apps, Django, Streamlit, Gradio, and files that are servers by themselves. */
import type { Evidence } from '../../domain/plan.ts';
import { stringAt, tableAt } from '../manifest.ts';
import { quote } from '../quote.ts';
import type { App } from './app.ts';
import { type Detector, detection, type Stuck } from './detector.ts';
import { fastapiHealth, healthRoute } from './health.ts';
import { fixedPort, fixedPortNotes, PYTHON_PORTS } from './port.ts';
import { PACKAGES, type PythonPackages, pythonPackages, pythonVersion } from './python/packages.ts';
import { MANIFESTS as ALL_MANIFESTS } from './static.ts';

/** What is on the path already comes first: the author's own setting, and what Kiln loads before the app (moved-port). */
const SETUP = `export PYTHONPATH="\${PYTHONPATH:+$PYTHONPATH:}$PWD/${PACKAGES}:$PWD:$PWD/src" PATH="$PWD/${PACKAGES}/bin:$PATH"`;
const BIND = '0.0.0.0:$PORT';
const MANIFESTS = ['requirements.txt', 'pyproject.toml', 'Pipfile', 'setup.py'];

/** Bytecode holds the time it was made: two builds of one source would differ. */
const ENV = { PYTHONDONTWRITEBYTECODE: '1' };

interface Server {
  framework: string | null;
  start: string;
  evidence: Evidence[];
  warnings?: string[];
  port?: number | null;
  build?: string[];
  run_env?: Record<string, string>;
  health_check_path?: string;
}

type Found = Server | Stuck | null;

export const python: Detector = {
  name: 'python',
  looks_for: [...MANIFESTS, 'main.py', 'app.py', 'manage.py'],
  detect: (app) => {
    const packages = pythonPackages(app);
    const files = inOrder(app).filter(packages || app.first(...MANIFESTS) ? () => true : isOwn(app));
    if (!packages && files.length === 0) return null;
    const found =
      django(app, packages) ??
      asgi(app, packages, files) ??
      wsgi(app, packages, files) ??
      dashboard(app, packages, files) ??
      plain(app, files);
    if (!found) return packages || app.first(...MANIFESTS) ? stuck(app) : null;
    if ('stuck' in found) return found;
    const served = ['fastapi', 'starlette', 'flask', 'bottle', 'quart', 'litestar', 'sanic'];
    const health =
      (served.includes(found.framework ?? '') ? healthRoute(app, files) : null) ??
      (found.framework === 'fastapi' ? fastapiHealth(app, files) : null);
    return detection({
      ecosystem: 'python',
      framework: found.framework,
      kind: 'dynamic',
      install: packages?.install ?? [],
      build: (found.build ?? []).map((command) => `${SETUP}; ${command}`),
      start: `${SETUP}; exec ${found.start}`,
      setup: SETUP,
      port: found.port ?? null,
      health_check_path: found.health_check_path ?? health?.path ?? null,
      build_env: ENV,
      run_env: { ...ENV, PYTHONUNBUFFERED: '1', ...(found.run_env ?? {}) },
      toolchains: [pythonVersion(app)],
      evidence: [...(packages?.evidence ?? []), ...found.evidence, ...(health ? [health.evidence] : [])],
      would_change: [
        'run_command (or a Procfile with a `web:` line) starts something else.',
        'entrypoint names another file with the app in it.',
      ],
      warnings: [
        ...(packages?.warnings ?? []),
        ...(found.warnings ?? []),
        ...(packages || !found.framework
          ? []
          : [
              `Nothing installs ${found.framework}: no file names it. Add requirements.txt with ${found.framework} in it.`,
            ]),
      ],
    });
  },
};

const USUAL = [
  'main.py',
  'app.py',
  'server.py',
  'wsgi.py',
  'asgi.py',
  'api.py',
  'index.py',
  'run.py',
  'application.py',
  'streamlit_app.py',
];

/** Python files, the setting first, then the usual names, then the rest from the root down. */
function inOrder(app: App): string[] {
  const rank = (file: string) => {
    if (file === app.entrypoint) return -1;
    const usual = USUAL.indexOf(file.slice(file.lastIndexOf('/') + 1));
    return file.split('/').length * 100 + (usual < 0 ? 50 : usual);
  };
  return app.code(['py']).sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

/**
 * Where no manifest says that the whole folder is a Python project, a file further down is somebody else's: the server of
 * a folder beside the front end, or a helper of a site.
 */
function isOwn(app: App): (file: string) => boolean {
  const of_another = ALL_MANIFESTS.some((name) => name !== 'Procfile' && app.exists(name));
  return (file) =>
    file === app.entrypoint || !file.includes('/') || (!of_another && /^src\/[^/]+$/.test(file));
}

/** 'src/shop/app.py' as the module 'shop.app': `src` is on the path, as its layout means it. */
const moduleOf = (file: string): string =>
  file
    .replace(/\.py$/, '')
    .replace(/^src\//, '')
    .replace(/\/__init__$/, '')
    .replaceAll('/', '.');

const isModule = (name: string): boolean => /^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$/.test(name);

const uses = (packages: PythonPackages | null, ...names: string[]): boolean =>
  names.some((name) => packages?.names.has(name));

function django(app: App, packages: PythonPackages | null): Found {
  if (!app.exists('manage.py')) return null;
  const settings = app.search(['manage.py'], /DJANGO_SETTINGS_MODULE['"]\s*,\s*['"]([\w.]{1,200})['"]/);
  if (!settings) return null;
  const name = settings.match[1]!.split('.')[0]!;
  const evidence = [
    {
      ...app.evidence('manage.py', `settings module ${settings.match[1]}`, 'this is a Django project'),
      line: settings.line,
    },
  ];
  const project = app.code(['py'], 3);
  // collectstatic fails without a folder to collect into.
  const build = app.search(project, /^\s*STATIC_ROOT\s*=/)
    ? ['python3 manage.py collectstatic --noinput']
    : [];
  const wsgi =
    project.find((file) => file === `${name}/wsgi.py`) ??
    project.find((file) => /(^|\/)wsgi\.py$/.test(file));
  const asgi = project.find((file) => /(^|\/)asgi\.py$/.test(file));
  const shared = { framework: 'django', evidence, build };
  const hosts = app.search(project, /^\s*ALLOWED_HOSTS\s*=\s*\[\s*\]/);
  const warnings = hosts
    ? [
        `${hosts.file}:${hosts.line}: ALLOWED_HOSTS is empty; Django answers 400 unless DEBUG is on. Add the host names.`,
      ]
    : [];
  if (uses(packages, 'gunicorn') && wsgi)
    return { ...shared, warnings, start: `python3 -m gunicorn ${moduleOf(wsgi)}:application --bind ${BIND}` };
  if (uses(packages, 'uvicorn') && asgi)
    return {
      ...shared,
      warnings,
      start: `python3 -m uvicorn ${moduleOf(asgi)}:application --host 0.0.0.0 --port $PORT`,
    };
  if (uses(packages, 'daphne') && asgi)
    return {
      ...shared,
      warnings,
      start: `python3 -m daphne -b 0.0.0.0 -p $PORT ${moduleOf(asgi)}:application`,
    };
  const development = 'Django runs with its development server. Add gunicorn to the dependencies.';
  return {
    ...shared,
    warnings: [...warnings, development],
    start: 'python3 manage.py runserver --noreload 0.0.0.0:$PORT',
  };
}

const ASGI: [string, string, RegExp][] = [
  ['fastapi', 'fastapi', /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*(?:fastapi\.)?FastAPI\s*\(/],
  ['starlette', 'starlette', /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*Starlette\s*\(/],
  ['litestar', 'litestar', /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*Litestar\s*\(/],
  ['quart', 'quart', /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*Quart\s*\(/],
  ['python-fasthtml', 'fasthtml', /^(\w+)\s*(?:,\s*\w+\s*)?=\s*(?:fast_app|FastHTML)\s*\(/],
  ['sanic', 'sanic', /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*Sanic\s*\(/],
];
const FACTORY = /^def\s+(create_app|make_app|get_app|build_app)\s*\(/;
/** `app = create_app("production")` in wsgi.py: what the factory made, with the arguments it needs. */
const FACTORY_CALL =
  /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*(?:\w+\.)?(?:create_app|make_app|get_app|build_app)\s*\(/;

/** Where an app is made: by its class, by calling its factory, or by a factory that the server is to call. */
function appIn(app: App, files: string[], made: RegExp, is_used: boolean) {
  const hit = app.search(files, made) ?? (is_used ? app.search(files, FACTORY_CALL) : null);
  const factory = hit || !is_used ? null : app.search(files, FACTORY);
  const at = hit ?? factory;
  return at && isModule(moduleOf(at.file)) ? { at, factory } : null;
}

function asgi(app: App, packages: PythonPackages | null, files: string[]): Found {
  for (const [name, framework, pattern] of ASGI) {
    const found = appIn(app, files, pattern, uses(packages, name));
    if (!found) continue;
    const { at, factory } = found;
    const variable = at.match[1]!;
    const evidence = [
      {
        ...app.evidence(
          at.file,
          at.match[0].trim(),
          `the ${framework} app is ${moduleOf(at.file)}:${variable}`,
        ),
        line: at.line,
      },
    ];
    const target = `${moduleOf(at.file)}:${variable}${factory ? ' --factory' : ''}`;
    if (uses(packages, 'uvicorn') || bundlesUvicorn(app, packages)) {
      return { framework, evidence, start: `python3 -m uvicorn ${target} --host 0.0.0.0 --port $PORT` };
    }
    if (uses(packages, 'hypercorn') && !factory)
      return { framework, evidence, start: `python3 -m hypercorn ${target} --bind ${BIND}` };
    if (name === 'sanic')
      return {
        framework,
        evidence,
        start: `python3 -m sanic ${target} --host 0.0.0.0 --port $PORT --single-process`,
      };
    if (uses(packages, name)) {
      return {
        stuck: `${at.file}:${at.line} is a ${framework} app, but no server for it is among the dependencies.`,
        next_step: 'Add uvicorn to the dependencies (requirements.txt or pyproject.toml).',
        evidence,
      };
    }
  }
  return null;
}

/** `fastapi[standard]` and FastHTML bring uvicorn along. */
const bundlesUvicorn = (app: App, packages: PythonPackages | null): boolean =>
  uses(packages, 'fastapi-cli', 'uvicorn-worker', 'python-fasthtml') ||
  ['requirements.txt', 'pyproject.toml'].some(
    (file) => app.line(file, /fastapi\[[^\]]*(?:standard|all)|fastapi.*extras.*(?:standard|all)/i) !== null,
  );

const WSGI: [string, string, RegExp][] = [
  ['flask', 'flask', /^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*(?:flask\.)?Flask\s*\(/],
  ['bottle', 'bottle', /^(\w+)\s*=\s*(?:bottle\.)?(?:Bottle|default_app)\s*\(/],
  ['falcon', 'falcon', /^(\w+)\s*=\s*falcon\.(?:App|API)\s*\(/],
  ['dash', 'dash', /^(\w+)\s*=\s*(?:dash\.)?Dash\s*\(/],
];

function wsgi(app: App, packages: PythonPackages | null, files: string[]): Found {
  for (const [name, framework, pattern] of WSGI) {
    const found = appIn(app, files, pattern, uses(packages, name));
    if (!found) continue;
    const { at, factory } = found;
    const of = moduleOf(at.file);
    // Dash wraps a Flask app, and that one is the WSGI app.
    const target = factory
      ? `'${of}:${at.match[1]}()'`
      : `${of}:${at.match[1]}${name === 'dash' ? '.server' : ''}`;
    const evidence = [
      { ...app.evidence(at.file, at.match[0].trim(), `the ${framework} app is ${target}`), line: at.line },
    ];
    if (uses(packages, 'gunicorn'))
      return { framework, evidence, start: `python3 -m gunicorn ${target} --bind ${BIND}` };
    if (uses(packages, 'waitress'))
      return {
        framework,
        evidence,
        start: `python3 -m waitress --listen=${BIND} ${factory ? `--call ${of}:${at.match[1]}` : target}`,
      };
    const warnings = [`${framework} runs with its development server. Add gunicorn to the dependencies.`];
    if (name === 'flask')
      return {
        framework,
        evidence,
        warnings,
        start: `python3 -m flask --app ${of} run --host 0.0.0.0 --port $PORT`,
      };
    const fixed = fixedPortNotes(app, fixedPort(app, [at.file], PYTHON_PORTS));
    return {
      framework,
      evidence: [...evidence, ...fixed.evidence],
      warnings: [...warnings, ...fixed.warnings],
      port: fixed.port,
      start: `python3 ${quote(at.file)}`,
    };
  }
  return null;
}

function dashboard(app: App, packages: PythonPackages | null, files: string[]): Found {
  if (uses(packages, 'streamlit')) {
    const at = app.search(files, /^\s*(?:import streamlit|from streamlit)\b/);
    if (!at) return null;
    return {
      framework: 'streamlit',
      evidence: [{ ...app.evidence(at.file, 'imports streamlit', 'this is a Streamlit app'), line: at.line }],
      start: `python3 -m streamlit run ${quote(at.file)} --server.port $PORT --server.address 0.0.0.0 --server.headless true --browser.gatherUsageStats false`,
      health_check_path: '/_stcore/health',
    };
  }
  if (uses(packages, 'gradio')) {
    const at = app.search(files, /\.launch\s*\(/);
    if (!at) return null;
    return {
      framework: 'gradio',
      evidence: [{ ...app.evidence(at.file, 'calls launch()', 'this is a Gradio app'), line: at.line }],
      // Gradio reads its own variables, not PORT.
      start: `env GRADIO_SERVER_PORT="$PORT" python3 ${quote(at.file)}`,
      run_env: { GRADIO_SERVER_NAME: '0.0.0.0', GRADIO_ANALYTICS_ENABLED: 'False' },
    };
  }
  return null;
}

/** A file with a usual name that is a program: it starts by itself. */
function plain(app: App, files: string[]): Found {
  const scripts = tableAt(
    app.exists('pyproject.toml') ? app.toml('pyproject.toml') : null,
    'project',
    'scripts',
  );
  const script = stringAt(scripts, 'start') ?? stringAt(scripts, 'serve') ?? stringAt(scripts, 'web');
  const [, module, call] = /^([\w.]+):(\w+)$/.exec(script ?? '') ?? [];
  if (module && call) {
    return {
      framework: null,
      evidence: [
        app.evidence(
          'pyproject.toml',
          `project script ${script}`,
          'this starts the server',
          '[project.scripts]',
        ),
      ],
      start: `python3 -c ${quote(`from ${module} import ${call}; ${call}()`)}`,
    };
  }
  const entry =
    files.find((file) => file === app.entrypoint) ??
    ['main.py', 'app.py', 'server.py', 'run.py', 'src/main.py', '__main__.py'].find((file) =>
      files.includes(file),
    );
  if (!entry) return packageMain(app, files);
  const fixed = fixedPortNotes(app, fixedPort(app, [entry], PYTHON_PORTS));
  return {
    framework: null,
    evidence: [
      app.evidence(
        entry,
        entry,
        'this file is run; it has to listen on PORT',
        /__main__|serve_forever|\.run\(/,
      ),
      ...fixed.evidence,
    ],
    start: `python3 ${quote(entry)}`,
    port: fixed.port,
    warnings: fixed.warnings,
  };
}

/** `python -m shopd`: the only package that is a program. */
function packageMain(app: App, files: string[]): Server | null {
  const mains = files.filter((file) => /^(?:src\/)?\w+\/__main__\.py$/.test(file));
  const name = mains.length === 1 ? moduleOf(mains[0]!).replace(/\.__main__$/, '') : '';
  if (!isModule(name)) return null;
  const follows = 'this package is run; it has to listen on PORT';
  return {
    framework: null,
    evidence: [app.evidence(mains[0]!, mains[0]!, follows)],
    start: `python3 -m ${name}`,
  };
}

function stuck(app: App): Stuck {
  const manifest = app.first(...MANIFESTS)!;
  return {
    stuck: `${manifest} is there, but no web app was found: no FastAPI, Flask or Django app, and no main.py, app.py or server.py.`,
    next_step:
      'Name the file with entrypoint, or give run_command, for example `python3 -m uvicorn shop.web:app --host 0.0.0.0 --port $PORT`.',
    evidence: [app.evidence(manifest, manifest, 'this is a Python project')],
  };
}

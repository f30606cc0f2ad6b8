/**
 * What a Python app depends on, and how it is installed into `.kiln/python/site-packages`: a plain folder that moves with the
 * release, unlike a virtual environment. Locks of uv, poetry, pdm and pipenv decide the versions.
 */
import type { Evidence, Toolchain } from '../../../domain/plan.ts';
import { isTable, stringAt, stringsAt, tableAt } from '../../manifest.ts';
import { quote } from '../../quote.ts';
import { type App, versionFile } from '../app.ts';

/** Some packages take any other name for a checkout of their own source (Streamlit does). */
export const PACKAGES = '.kiln/python/site-packages';
/** What is only needed to install. */
const TOOLS = '.kiln/tools';
const UV = 'uv==0.9.18';
const PIP = 'python3 -m pip install --no-compile --disable-pip-version-check --root-user-action ignore';

export interface PythonPackages {
  /** Canonical names of the direct dependencies. */
  names: ReadonlySet<string>;
  install: string[];
  /** Where a dependency is declared, for evidence. */
  evidence: Evidence[];
  warnings: string[];
}

/** 'Flask_SQLAlchemy[x]>=2 ; python_version…' as 'flask-sqlalchemy'. */
export const canonical = (requirement: string): string =>
  (/^[\w.-]+/.exec(requirement.trim())?.[0] ?? '').toLowerCase().replace(/[-_.]+/g, '-');

const MAX_REQUIREMENTS = 1000;

/** The app's dependencies; null when no file declares any. */
export function pythonPackages(app: App): PythonPackages | null {
  const project = app.exists('pyproject.toml') ? app.toml('pyproject.toml') : null;
  if (project && app.exists('uv.lock')) return fromUv(app);
  if (app.exists('poetry.lock') && project) return fromLock(app, 'poetry.lock', 'poetry', declared(app));
  if (app.exists('pdm.lock') && project) return fromLock(app, 'pdm.lock', 'pdm', declared(app));
  const requirements = app.first(
    'requirements.txt',
    'requirements/production.txt',
    'requirements/prod.txt',
    'requirements/base.txt',
  );
  if (requirements) return fromRequirements(app, requirements);
  if (app.exists('Pipfile')) return fromPipfile(app);
  if (project && declared(app).length > 0) return fromProject(app);
  if (app.exists('setup.py') || app.exists('setup.cfg')) return fromSetup(app);
  return null;
}

/** `--upgrade`: without it pip leaves alone what an earlier build put into the folder. */
const into = (what: string) => `${PIP} --upgrade --target ${PACKAGES} ${what}`;

/** `-r other.txt` included, a few levels deep. */
function requirementNames(app: App, file: string, depth = 0): string[] {
  const lines = (app.read(file) ?? '').split('\n').slice(0, MAX_REQUIREMENTS);
  const dir = file.includes('/') ? `${file.slice(0, file.lastIndexOf('/'))}/` : '';
  return lines.flatMap((line) => {
    const included = /^\s*(?:-r|--requirement)[ =]+([^\s#]{1,200})/.exec(line)?.[1];
    if (included) return depth < 3 ? requirementNames(app, `${dir}${included}`, depth + 1) : [];
    return /^\s*[\w.]/.test(line) ? [canonical(line)] : [];
  });
}

function fromRequirements(app: App, file: string): PythonPackages {
  const loose = /^\s*[A-Za-z][\w.-]*(?:\[[\w,. -]*\])?\s*(?:#|;|$|>|<|~)/;
  const line = app.line(file, loose);
  return {
    names: new Set(requirementNames(app, file)),
    install: [into(`-r ${quote(file)}`)],
    evidence: [app.evidence(file, file, 'packages are installed with pip')],
    warnings:
      line === null
        ? []
        : [
            `${file}:${line} names no exact version: a later build may install a newer package. Pin with \`==\`.`,
          ],
  };
}

function fromUv(app: App): PythonPackages {
  // Hashes are checked by pip, unless something in the lock has none.
  const unhashed =
    app.line('uv.lock', /^source = \{ (?:git|directory|path|url|editable) = "(?!\.")/) !== null;
  const flags = `--frozen --no-dev --no-emit-project --no-editable --no-header${unhashed ? ' --no-hashes' : ''}`;
  return {
    names: new Set(declared(app).map(canonical)),
    install: [
      `${PIP} --target ${TOOLS} ${UV}`,
      `${TOOLS}/bin/uv export ${flags} --output-file .kiln/requirements.txt > /dev/null`,
      into('-r .kiln/requirements.txt'),
      `rm -rf ${TOOLS}`,
    ],
    evidence: [app.evidence('uv.lock', 'uv.lock', 'packages are installed exactly as uv locked them')],
    warnings: [],
  };
}

/** Reads names and versions out of a lock of poetry or pdm; a package locked in two versions is left to pip. */
const LOCK_TO_CONSTRAINTS = `import re,sys
text=open(sys.argv[1],encoding="utf-8").read()
found={}
for name,version in re.findall(r'\\[\\[package\\]\\]\\s+name = "([^"]+)"\\s+version = "([^"]+)"',text): found.setdefault(name,set()).add(version)
print("\\n".join(sorted(n+"=="+v.pop() for n,v in found.items() if len(v)==1)))`;

function fromLock(app: App, lock: string, tool: string, requirements: string[]): PythonPackages {
  const words = requirements.map((one) => quote(one)).join(' ');
  return {
    names: new Set(requirements.map(canonical)),
    install: [
      `mkdir -p .kiln && python3 -c ${quote(LOCK_TO_CONSTRAINTS)} ${lock} > .kiln/constraints.txt`,
      ...(words ? [into(`-c .kiln/constraints.txt ${words}`)] : []),
    ],
    evidence: [
      app.evidence(lock, lock, `packages are installed with pip in the versions that ${tool} locked`),
    ],
    warnings: [],
  };
}

const PIPFILE_LOCK_TO_REQUIREMENTS = `import json
for name,one in sorted(json.load(open("Pipfile.lock",encoding="utf-8"))["default"].items()):
  extras="["+",".join(one["extras"])+"]" if one.get("extras") else ""
  marker=" ; "+one["markers"] if one.get("markers") else ""
  if one.get("version"): print(name+extras+one["version"]+marker)`;

function fromPipfile(app: App): PythonPackages {
  const packages = tableAt(app.toml('Pipfile'), 'packages');
  const names = new Set(Object.keys(packages).map(canonical));
  const evidence = [app.evidence('Pipfile', 'Pipfile', 'packages are installed with pip', '[packages]')];
  if (app.exists('Pipfile.lock')) {
    const write = `mkdir -p .kiln && python3 -c ${quote(PIPFILE_LOCK_TO_REQUIREMENTS)} > .kiln/requirements.txt`;
    return { names, install: [write, into('-r .kiln/requirements.txt')], evidence, warnings: [] };
  }
  const words = Object.entries(packages).map(([name, range]) => quote(poetryRequirement(name, range)));
  const warnings = ['No Pipfile.lock: each build may install newer packages. Commit it.'];
  return { names, install: words.length > 0 ? [into(words.join(' '))] : [], evidence, warnings };
}

function fromProject(app: App): PythonPackages {
  const requirements = declared(app);
  return {
    names: new Set(requirements.map(canonical)),
    install: [into(requirements.map((one) => quote(one)).join(' '))],
    evidence: [
      app.evidence(
        'pyproject.toml',
        'dependencies',
        'packages are installed with pip',
        /^\s*(?:dependencies\s*=|\[tool\.poetry\.dependencies\])/,
      ),
    ],
    warnings: [
      'No lock file: each build may install newer packages. Lock with uv, poetry or pinned requirements.txt.',
    ],
  };
}

function fromSetup(app: App): PythonPackages {
  const file = app.first('setup.py', 'setup.cfg')!;
  return {
    names: new Set(),
    install: [into('.')],
    evidence: [app.evidence(file, file, 'the project itself is installed with pip')],
    warnings: [],
  };
}

/** What pyproject.toml declares, as pip writes it: [project], or poetry's own table. */
function declared(app: App): string[] {
  const project = app.toml('pyproject.toml');
  const standard = stringsAt(project, 'project', 'dependencies').slice(0, MAX_REQUIREMENTS);
  if (standard.length > 0) return standard;
  return Object.entries(tableAt(project, 'tool', 'poetry', 'dependencies'))
    .filter(([name, of]) => name !== 'python' && !(isTable(of) && of.optional === true))
    .slice(0, MAX_REQUIREMENTS)
    .map(([name, of]) => poetryRequirement(name, of));
}

/** `flask = "^3.0"`, `{ version = "^3.0", extras = ["x"] }`, `{ git = "…" }` as one requirement of pip. */
function poetryRequirement(name: string, of: unknown): string {
  const range = typeof of === 'string' ? of : (stringAt(of, 'version') ?? '*');
  const extras = isTable(of) ? stringsAt(of, 'extras') : [];
  const whole = extras.length > 0 ? `${name}[${extras.join(',')}]` : name;
  const git = isTable(of) ? stringAt(of, 'git') : null;
  if (git) {
    const at = stringAt(of, 'rev') ?? stringAt(of, 'tag') ?? stringAt(of, 'branch');
    return `${whole} @ git+${git}${at ? `@${at}` : ''}`;
  }
  return (
    whole +
    range
      .split(',')
      .map((one) => poetryRange(one.trim()))
      .filter(Boolean)
      .join(',')
  );
}

/** Poetry's `^1.2` and `~1.2` in the words of pip. */
function poetryRange(range: string): string {
  if (range === '' || range === '*') return '';
  const caret = /^([\^~])\s*(\d+(?:\.\d+)*)/.exec(range);
  if (!caret) return /^\d/.test(range) ? `==${range}` : range.replace(/\s+/g, '');
  const parts = caret[2]!.split('.').map(Number);
  const nonzero = parts.findIndex((part) => part > 0);
  const at = caret[1] === '~' ? Math.min(1, parts.length - 1) : nonzero < 0 ? parts.length - 1 : nonzero;
  const upper = [...parts.slice(0, at), parts[at]! + 1];
  return `>=${caret[2]},<${upper.join('.')}`;
}

/** The Python version the app asks for. */
export function pythonVersion(app: App): Toolchain {
  const runtime = versionFile(app, 'python3', '.python-version', 'runtime.txt') ?? app.pinned('python');
  if (runtime) return { ...runtime, name: 'python3', version: runtime.version!.replace(/^python-/, '') };
  const project = app.exists('pyproject.toml') ? app.toml('pyproject.toml') : null;
  const named =
    stringAt(project, 'project', 'requires-python') ??
    stringAt(project, 'tool', 'poetry', 'dependencies', 'python');
  if (named) return { name: 'python3', version: named, source: 'pyproject.toml' };
  const pipfile = app.exists('Pipfile') ? stringAt(app.toml('Pipfile'), 'requires', 'python_version') : null;
  return { name: 'python3', version: pipfile, source: pipfile === null ? null : 'Pipfile' };
}

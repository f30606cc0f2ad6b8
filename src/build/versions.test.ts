/** Every file that names a version is read, and named as the place it came from. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryFiles } from './files.ts';
import { makePlan } from './plan.ts';

type Source = Record<string, string>;

const NODE: Source = { 'package.json': '{"scripts":{"start":"node a.js"}}', 'a.js': '' };
const PYTHON: Source = {
  'requirements.txt': 'flask==3\ngunicorn==23\n',
  'app.py': 'app = Flask(__name__)\n',
};
const GO: Source = { 'go.mod': 'module x\n', 'main.go': 'package main\n' };
const RUBY: Source = { Gemfile: "gem 'rack'\n", 'config.ru': 'run App\n' };
const PHP: Source = { 'index.php': '<?php' };
const JAVA: Source = { 'pom.xml': '<project></project>' };
const RUST: Source = { 'Cargo.toml': '[package]\nname = "a"\n', 'src/main.rs': 'fn main() {}\n' };
const DOTNET: Source = { 'App.csproj': '<Project Sdk="Microsoft.NET.Sdk.Web"></Project>' };
const ELIXIR: Source = { 'mix.exs': 'app: :a,\n' };

const pkg = (more: string): Source => ({ 'package.json': `{"scripts":{"start":"node a.js"},${more}}` });

const CASES: [app: Source, tool: string, files: Source, version: string, source: string][] = [
  [NODE, 'node', { '.nvmrc': 'v22.11.0\n' }, 'v22.11.0', '.nvmrc'],
  [NODE, 'node', { '.nvmrc': '# of the team\nlts/jod\n' }, 'lts/jod', '.nvmrc'],
  [NODE, 'node', { '.node-version': '22' }, '22', '.node-version'],
  [NODE, 'node', { '.tool-versions': 'python 3.12\nnodejs 22.1.0 20.0.0\n' }, '22.1.0', '.tool-versions'],
  [NODE, 'node', { 'mise.toml': '[tools]\nnode = "22"\n' }, '22', 'mise.toml'],
  [NODE, 'node', { '.mise.toml': '[tools]\nnode = { version = "20" }\n' }, '20', '.mise.toml'],
  [NODE, 'node', { '.config/mise.toml': '[tools]\nnode = ["24", "22"]\n' }, '24', '.config/mise.toml'],
  [NODE, 'node', pkg('"engines":{"node":">=22"}'), '>=22', 'package.json'],
  [NODE, 'node', pkg('"volta":{"node":"22.3.0"}'), '22.3.0', 'package.json'],
  [NODE, 'node', pkg('"devEngines":{"runtime":{"name":"node","version":"^22"}}'), '^22', 'package.json'],
  [NODE, 'node', { ...pkg('"engines":{"node":"18"}'), '.nvmrc': '20' }, '20', '.nvmrc'],
  [PYTHON, 'python3', { '.python-version': '3.12\n' }, '3.12', '.python-version'],
  [PYTHON, 'python3', { 'runtime.txt': 'python-3.11.9\n' }, '3.11.9', 'runtime.txt'],
  [PYTHON, 'python3', { '.tool-versions': 'python 3.12.1\n' }, '3.12.1', '.tool-versions'],
  [
    PYTHON,
    'python3',
    { 'pyproject.toml': '[project]\nrequires-python = ">=3.11"\n' },
    '>=3.11',
    'pyproject.toml',
  ],
  [
    PYTHON,
    'python3',
    { 'pyproject.toml': '[tool.poetry.dependencies]\npython = "^3.11"\n' },
    '^3.11',
    'pyproject.toml',
  ],
  [PYTHON, 'python3', { Pipfile: '[requires]\npython_version = "3.11"\n' }, '3.11', 'Pipfile'],
  [GO, 'go', { 'go.mod': 'module x\n\ngo 1.22\n' }, '>=1.22', 'go.mod'],
  [GO, 'go', { 'go.mod': 'module x\n\ngo 1.22\n\ntoolchain go1.23.4\n' }, '>=1.23.4', 'go.mod'],
  [GO, 'go', { '.go-version': '1.25.1' }, '1.25.1', '.go-version'],
  [GO, 'go', { '.tool-versions': 'golang 1.25.1' }, '1.25.1', '.tool-versions'],
  [RUBY, 'ruby', { '.ruby-version': 'ruby-3.4.1\n' }, '3.4.1', '.ruby-version'],
  [RUBY, 'ruby', { Gemfile: "ruby '~> 3.3'\ngem 'rack'\n" }, '~> 3.3', 'Gemfile'],
  [RUBY, 'ruby', { 'Gemfile.lock': 'RUBY VERSION\n   ruby 3.4.1p0\n' }, '3.4.1', 'Gemfile.lock'],
  [PHP, 'php', { '.php-version': '8.3' }, '8.3', '.php-version'],
  [PHP, 'php', { 'composer.json': '{"require":{"php":"^8.2"}}' }, '^8.2', 'composer.json'],
  [JAVA, 'java', { '.java-version': '21' }, '21', '.java-version'],
  [JAVA, 'java', { '.sdkmanrc': 'java=21.0.3-tem\n' }, '21.0.3', '.sdkmanrc'],
  [JAVA, 'java', { 'system.properties': 'java.runtime.version=17\n' }, '17', 'system.properties'],
  [JAVA, 'java', { 'pom.xml': '<project>\n<java.version>21</java.version>\n' }, '>=21', 'pom.xml'],
  [{}, 'java', { 'build.gradle.kts': 'kotlin { jvmToolchain(21) }\n' }, '>=21', 'build.gradle.kts'],
  [RUST, 'cargo', { 'rust-toolchain': '1.80.0\n' }, '1.80.0', 'rust-toolchain'],
  [
    RUST,
    'cargo',
    { 'rust-toolchain.toml': '[toolchain]\nchannel = "1.81"\n' },
    '1.81',
    'rust-toolchain.toml',
  ],
  [RUST, 'cargo', { 'Cargo.toml': '[package]\nname = "a"\nrust-version = "1.75"\n' }, '>=1.75', 'Cargo.toml'],
  [DOTNET, 'dotnet', { 'global.json': '{"sdk":{"version":"9.0.100"}}' }, '9.0.100', 'global.json'],
  [
    {},
    'dotnet',
    { 'App.csproj': '<Project Sdk="Microsoft.NET.Sdk.Web">\n<TargetFramework>net9.0</TargetFramework>' },
    '>=9.0',
    'App.csproj',
  ],
  [ELIXIR, 'elixir', { '.elixir-version': '1.18' }, '1.18', '.elixir-version'],
  [ELIXIR, 'elixir', { '.tool-versions': 'elixir 1.18.0-otp-27' }, '1.18.0-otp-27', '.tool-versions'],
  [ELIXIR, 'elixir', { 'mix.exs': 'app: :a,\nelixir: "~> 1.14",\n' }, '~> 1.14', 'mix.exs'],
];

for (const [app, name, files, version, source] of CASES) {
  test(`${name} ${version} of ${source}`, () => {
    const result = makePlan(memoryFiles({ ...app, ...files }), { overrides: {} });
    assert.ok(result.ok, result.ok ? '' : result.refusal.message);
    assert.deepEqual(result.plan.toolchains[0], { name, version, source });
  });
}

test('package managers come in the version that the app names', () => {
  const install = (files: Source) => {
    const result = makePlan(memoryFiles({ ...NODE, ...files }), { overrides: {} });
    assert.ok(result.ok);
    return result.plan.install.join('\n');
  };
  const of = (more: string, lock: string): Source => ({ ...pkg(more), [lock]: '' });
  assert.match(install(of('"packageManager":"pnpm@9.1.0+sha512.abc"', 'pnpm-lock.yaml')), /pnpm@9\.1\.0 /);
  assert.match(install(of('"volta":{"yarn":"1.22.19"}', 'yarn.lock')), /yarn@1\.22\.19 /);
  assert.match(install({ ...of('"x":1', 'bun.lock'), '.bun-version': '1.2.3' }), /bun@1\.2\.3/);
  assert.match(
    install({ ...of('"x":1', 'pnpm-lock.yaml'), '.tool-versions': 'pnpm 9.2.0\n' }),
    /pnpm@9\.2\.0 /,
  );
  assert.match(
    install({ ...of('"x":1', 'pnpm-lock.yaml'), 'pnpm-lock.yaml': "lockfileVersion: '6.0'\n" }),
    /pnpm@8\./,
  );
});

test('version managers look in the folders above as well', () => {
  const below = Object.fromEntries(Object.entries(PYTHON).map(([file, text]) => [`apps/api/${file}`, text]));
  const result = makePlan(
    memoryFiles({ ...below, 'mise.toml': '[tools]\npython = "3.12"\n', '.nvmrc': '20' }),
    {
      overrides: { root: 'apps/api' },
    },
  );
  assert.ok(result.ok);
  assert.deepEqual(result.plan.toolchains, [{ name: 'python3', version: '3.12', source: 'mise.toml' }]);
});

/** Rust: cargo packages and workspaces, the binary that serves. */

import { joinPath } from '../files.ts';
import { isTable, stringAt, stringsAt, tableAt } from '../manifest.ts';
import { quote } from '../quote.ts';
import { type App, openApp, versionFile } from './app.ts';
import { type Detector, detection, type Stuck } from './detector.ts';
import { fixedPort, fixedPortNotes } from './port.ts';

const FRAMEWORKS = ['axum', 'actix-web', 'rocket', 'warp', 'poem', 'salvo', 'tide', 'hyper', 'tiny_http'];
const PORT_IN_CODE =
  /"(?:0\.0\.0\.0|127\.0\.0\.1|\[::\]|localhost):(\d{2,5})"|\(\s*(?:\[[\d, ]+\]|"[\d.]+")\s*,\s*(\d{2,5})\s*\)/;
const READS_PORT = /"PORT"/;

interface Binary {
  package: string;
  name: string;
  dir: string;
}

/** Binaries of one package: [[bin]], src/main.rs, src/bin/*.rs. */
function binariesOf(app: App, dir: string): Binary[] {
  const inner = openApp(app.files, joinPath(app.root, dir) ?? app.root);
  const manifest = inner.toml('Cargo.toml');
  const name = stringAt(manifest, 'package', 'name');
  if (!name) return [];
  const bins = Array.isArray(manifest?.bin) ? manifest.bin.filter(isTable) : [];
  const names = bins.map((bin) => stringAt(bin, 'name')).filter((one): one is string => one !== null);
  const mains = bins.some((bin) => stringAt(bin, 'path') === 'src/main.rs')
    ? []
    : inner.exists('src/main.rs')
      ? [name]
      : [];
  const more = inner.list('src/bin').filter((entry) => entry.type === 'file' && entry.name.endsWith('.rs'));
  const all = [...mains, ...names, ...more.map((entry) => entry.name.slice(0, -3))];
  return [...new Set(all)].slice(0, 50).map((bin) => ({ package: name, name: bin, dir }));
}

function members(app: App): string[] {
  return stringsAt(app.toml('Cargo.toml'), 'workspace', 'members')
    .slice(0, 50)
    .flatMap((pattern) =>
      pattern.endsWith('/*')
        ? app
            .list(pattern.slice(0, -2))
            .filter(({ type }) => type === 'dir')
            .map(({ name }) => `${pattern.slice(0, -2)}/${name}`)
        : [pattern],
    )
    .slice(0, 100);
}

export const rust: Detector = {
  name: 'rust',
  looks_for: ['Cargo.toml'],
  detect: (app) => {
    const manifest = app.toml('Cargo.toml');
    if (!manifest) return null;
    const binaries = ['.', ...members(app)].flatMap((dir) => binariesOf(app, dir));
    const asked = app.entrypoint?.replace(/^src\/bin\/|\.rs$/g, '');
    const wanted = asked ?? stringAt(manifest, 'package', 'default-run');
    const usual = ['server', 'web', 'api', 'app'];
    const chosen =
      binaries.find(({ name, dir }) => name === wanted || dir === wanted) ??
      (binaries.length === 1 ? binaries[0] : undefined) ??
      binaries.find(({ dir, name, package: of }) => dir === '.' && name === of) ??
      binaries.find(({ name }) => usual.includes(name));
    if (!chosen) return stuck(app, binaries);
    const inner = openApp(app.files, joinPath(app.root, chosen.dir) ?? app.root);
    const dependencies = {
      ...tableAt(manifest, 'workspace', 'dependencies'),
      ...tableAt(inner.toml('Cargo.toml'), 'dependencies'),
    };
    const framework = FRAMEWORKS.find((name) => name in dependencies) ?? null;
    const fixed = fixedPortNotes(
      inner,
      fixedPort(inner, inner.code(['rs']), { written: [PORT_IN_CODE], reads_port: READS_PORT }),
    );
    const locked = app.exists('Cargo.lock') ? ' --locked' : '';
    const name = quote(chosen.name);
    const rocket = framework === 'rocket';
    return detection({
      ecosystem: 'rust',
      framework,
      kind: 'dynamic',
      // Only the binary is kept: target/ is many times larger.
      build: [
        `cargo build --release${locked} --package ${quote(chosen.package)} --bin ${name}`,
        `mkdir -p .kiln/bin && cp target/release/${name} .kiln/bin/app && rm -rf target`,
      ],
      start: `${rocket ? 'export ROCKET_PORT="$PORT"; ' : ''}exec ./.kiln/bin/app`,
      port: rocket ? null : fixed.port,
      run_env: rocket ? { ROCKET_ADDRESS: '0.0.0.0' } : {},
      toolchains: [rustVersion(app)],
      evidence: [
        app.evidence('Cargo.toml', `binary ${chosen.name}`, 'this is built and run', '[package]'),
        ...(framework
          ? [
              inner.evidence(
                'Cargo.toml',
                `depends on ${framework}`,
                `the framework is ${framework}`,
                framework,
              ),
            ]
          : []),
        ...(rocket ? [] : fixed.evidence),
      ],
      would_change: ['entrypoint = "src/bin/<name>.rs" (or the name alone) builds another binary.'],
      warnings: [
        ...(locked ? [] : ['No Cargo.lock: each build may use newer crates. Commit it.']),
        ...(rocket ? [] : fixed.warnings),
      ],
    });
  },
};

function stuck(app: App, binaries: Binary[]): Stuck {
  const names = binaries.map(({ name }) => name).slice(0, 20);
  return {
    stuck:
      names.length === 0
        ? 'Cargo.toml is there, but no binary (src/main.rs).'
        : `This crate has ${names.length} binaries: ${names.join(', ')}.`,
    next_step:
      names.length === 0
        ? 'Add src/main.rs, or give run_command.'
        : `Name one, for example entrypoint = "${names[0]}".`,
    evidence: [app.evidence('Cargo.toml', 'Cargo.toml', 'this is a Rust project')],
  };
}

function rustVersion(app: App) {
  const file = versionFile(app, 'cargo', 'rust-toolchain') ?? app.pinned('rust');
  if (file && !file.version!.startsWith('[')) return { ...file, name: 'cargo' };
  const channel = app.exists('rust-toolchain.toml')
    ? stringAt(app.toml('rust-toolchain.toml'), 'toolchain', 'channel')
    : null;
  if (channel) return { name: 'cargo', version: channel, source: 'rust-toolchain.toml' };
  const minimum = stringAt(app.toml('Cargo.toml'), 'package', 'rust-version');
  return { name: 'cargo', version: minimum ? `>=${minimum}` : null, source: minimum ? 'Cargo.toml' : null };
}

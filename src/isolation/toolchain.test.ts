import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { arch } from 'node:process';
import { after, before, describe, it } from 'node:test';
import { openAnswers } from './answers.ts';
import { probeProgram } from './docker/probe-image.ts';
import { findToolchains, machinePath, searchEntries, TOOL_NAMES } from './toolchain.ts';

describe('toolchains', () => {
  let dir: string;
  before(async () => {
    dir = await realpath(await mkdtemp(join(tmpdir(), 'kiln-tools-')));
  });
  after(() => rm(dir, { recursive: true }));

  async function script(path: string, text: string): Promise<string> {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), `#!/bin/sh\n${text}\n`);
    await chmod(join(dir, path), 0o755);
    return join(dir, path);
  }

  it('leaves out the search path entries of npm run and relative ones', () => {
    const path =
      '/a/node_modules/.bin:/x/lib/node_modules/@npmcli/run-script/lib/node-gyp-bin:.::/usr/bin:/usr/bin';
    assert.deepEqual(searchEntries(path), ['/usr/bin']);
  });

  it('offers the Node that runs Kiln when the host has none', async () => {
    const empty = join(dir, 'empty');
    await mkdir(empty);
    const tools = await findToolchains(empty);
    assert.deepEqual(
      tools.map((tool) => [tool.name, tool.version]),
      [['node', process.versions.node]],
    );
    assert.ok(machinePath(tools, empty).startsWith(dirname(tools[0]!.real_path)));
  });

  it('looks behind the shims of a version manager', async () => {
    await script('versions/3.12.1/bin/python3', `printf '%s\\n' "$0" "${dir}/versions/3.12.1" 3.12.1`);
    const shims = dirname(await script('shims/python3', `exec ${dir}/versions/3.12.1/bin/python3 "$@"`));
    const python = (await findToolchains(shims)).find((tool) => tool.name === 'python3')!;
    assert.deepEqual(python, {
      name: 'python3',
      path: join(shims, 'python3'),
      real_path: `${dir}/versions/3.12.1/bin/python3`,
      prefix_dir: `${dir}/versions/3.12.1`,
      version: '3.12.1',
    });
    const path = machinePath([python], `${shims}:/usr/bin`).split(':');
    assert.deepEqual(path.slice(0, 2), [`${dir}/versions/3.12.1/bin`, '/usr/bin']);
    assert.ok(!path.includes(shims));
  });

  it('finds cargo behind rustup, and tools that need the folder around them', async () => {
    await script('rust/toolchains/stable/bin/cargo', "echo 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'");
    await script('rust/bin/rustc', `echo ${dir}/rust/toolchains/stable`);
    const bin = dirname(await script('rust/bin/cargo', 'exit 1'));
    await script('jdk/bin/java', "echo 'openjdk 21.0.3 2024-04-16'");
    const tools = await findToolchains(`${bin}:${dir}/jdk/bin`);
    assert.deepEqual(
      tools
        .filter((tool) => tool.name !== 'node')
        .map(({ name, version, prefix_dir }) => [name, version, prefix_dir]),
      [
        ['java', '21.0.3', `${dir}/jdk`],
        ['cargo', '1.95.0', `${dir}/rust/toolchains/stable`],
      ],
    );
    assert.ok(['java', 'cargo', 'ruby'].every((name) => TOOL_NAMES.includes(name)));
  });

  it('finds npm in its prefix and reads its version without running it', async () => {
    const cli = await script('prefix/lib/node_modules/npm/bin/npm-cli.js', 'exit 1');
    await writeFile(join(dir, 'prefix/lib/node_modules/npm/package.json'), '{"version":"10.1.2"}');
    await mkdir(join(dir, 'prefix/bin'));
    await symlink(cli, join(dir, 'prefix/bin/npm'));
    const npm = (await findToolchains(join(dir, 'prefix/bin'))).find((tool) => tool.name === 'npm')!;
    assert.deepEqual([npm.prefix_dir, npm.version], [join(dir, 'prefix'), '10.1.2']);
  });

  it('shows a lone program as a single file, and skips one that does not work', async () => {
    const bin = dirname(await script('bin/uv', 'echo "uv 0.5.1"'));
    await script('bin/bun', 'exit 1');
    const tools = (await findToolchains(bin)).filter((tool) => tool.name !== 'node');
    assert.deepEqual(
      tools.map((tool) => [tool.name, tool.prefix_dir, tool.version]),
      [['uv', join(bin, 'uv'), '0.5.1']],
    );
  });

  it('remembers what programs say of themselves, and asks shims every time', async () => {
    const at = join(dir, 'remembered');
    const log = join(at, 'asked');
    const answering = (name: string, text: string) =>
      script(`remembered/${name}`, `echo ${name} >> ${log}\n${text}`);
    const says = (version: string) => `printf '%s\\n' ${at}/py/bin/python3 ${at}/py ${version}`;
    await answering('py/bin/python3', says('3.12.1'));
    await answering('real/bin/ruby', "echo 'ruby 3.3.0'");
    await answering('shims/ruby', `exec ${at}/real/bin/ruby "$@"`);
    // A compiled program that says `works` whatever it is asked.
    for (const file of ['shims/uv', 'real/bin/bun'])
      await writeFile(join(at, file), probeProgram(arch)!, { mode: 0o755 });
    const memory = join(at, 'programs.json');
    const versions = async () => {
      const answers = openAnswers(memory, () => Date.now() + 60_000);
      await rm(log, { force: true });
      const tools = await findToolchains(`${at}/py/bin:${at}/real/bin:${at}/shims`, answers);
      await answers.keep();
      const asked = (await readFile(log, 'utf8')).trim().split('\n').sort();
      const python = tools.find((tool) => tool.name === 'python3');
      return { asked, python: python?.version };
    };
    const ruby = 'real/bin/ruby';
    assert.deepEqual(await versions(), { asked: ['py/bin/python3', ruby], python: '3.12.1' });
    assert.deepEqual(await versions(), { asked: [ruby], python: '3.12.1' }, 'a script may run anything');
    await answering('py/bin/python3', says('3.12.2'));
    assert.deepEqual(await versions(), { asked: ['py/bin/python3', ruby], python: '3.12.2' });
    await writeFile(join(at, 'py/pyvenv.cfg'), 'home = /elsewhere\n');
    assert.deepEqual(await versions(), { asked: ['py/bin/python3', ruby], python: '3.12.2' });
    // What it says it is, it is not: a shim.
    await answering('py/bin/python3', says('3.12.3').replace('/py/bin', '/pyenv/bin'));
    for (let n = 0; n < 2; n++) assert.deepEqual((await versions()).asked, ['py/bin/python3', ruby]);
    const { answers } = JSON.parse(await readFile(memory, 'utf8'));
    const remembered = Object.keys(answers).map((key) => JSON.parse(key)[0]);
    assert.ok(remembered.includes(`${at}/real/bin/bun`), 'compiled, and named like the tool');
    assert.ok(!remembered.includes(`${at}/shims/uv`), 'the same among shims');
  });

  it('never offers a tool for which a machine would have to see everything', async () => {
    const bin = dirname(await script('wide/python3', "printf '%s\\n' /bin/python3 / 3.0"));
    assert.ok(!(await findToolchains(bin)).some((tool) => tool.name === 'python3'));
  });
});

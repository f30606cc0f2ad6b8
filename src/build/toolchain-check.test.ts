import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Toolchain } from '../domain/plan.ts';
import { memoryFiles } from './files.ts';
import { makePlan } from './plan.ts';
import { checkToolchains } from './toolchain-check.ts';
import { versionRange } from './version-range.ts';

const NODE_APP = {
  'package.json':
    '{"scripts":{"start":"node index.js","build":"node make.js"},"dependencies":{"express":"5"}}',
};

function planOf(files: Record<string, string>) {
  const result = makePlan(memoryFiles(files), { overrides: {} });
  assert.ok(result.ok);
  return result.plan;
}

const asking = (tool: Partial<Toolchain> & { name: string }) => ({
  ...planOf(NODE_APP),
  toolchains: [{ version: null, source: 'the file', ...tool }],
});

test('each ecosystem writes ranges in its own words', () => {
  const cases: [tool: string, wanted: string, version: string, fits: boolean][] = [
    ['node', 'v22.11.0', '22.11.0', true],
    ['node', '22', '22.3.1', true],
    ['node', '22.x', '24.0.0', false],
    ['node', '>=18 <23', '20.1.0', true],
    ['node', '^20.9 || >=22', '24.0.0', true],
    ['node', 'lts/jod', '22.1.0', true],
    ['node', 'lts/*', '23.1.0', false],
    ['node', 'latest', '16.0.0', true],
    ['python3', '3.11', '3.11.7', true],
    ['python3', '3.12', '3.11.7', false],
    ['python3', '>=3.10,<3.12', '3.11.7', true],
    ['python3', '>=3.8, !=3.9.7', '3.11.7', true],
    ['python3', '~=3.10', '3.13.0', true],
    ['python3', '~=3.10.2', '3.11.0', false],
    ['python3', '==3.11.*', '3.11.9', true],
    ['python3', '^3.11', '3.13.0', true],
    ['elixir', '~> 1.14', '1.19.0', true],
    ['elixir', '~> 1.14.2', '1.15.0', false],
    ['elixir', '1.18.0-otp-27', '1.18.0', true],
    ['ruby', '~> 3.2', '3.4.1', true],
    ['ruby', 'ruby-3.4.1', '3.4.1', true],
    ['php', '^8.1|^8.2', '8.3.0', true],
    ['php', '~8.1', '8.4.0', true],
    ['php', '8.1.*', '8.2.0', false],
    ['java', 'temurin-21.0.3+9.0.LTS', '21.0.3', true],
    ['java', '>=1.8', '17.0.2', true],
    ['java', '>=21', '17.0.2', false],
    ['cargo', 'stable', '1.95.0', true],
    ['cargo', '1.75.0', '1.95.0', false],
    ['dotnet', '>=9.0', '8.0.100', false],
  ];
  for (const [name, version, here, fits] of cases) {
    const result = checkToolchains(asking({ name, version }), [{ name, version: here }]);
    const clean = result.ok && result.warnings.length === 0;
    assert.equal(clean, fits, `${name} ${version} with ${here}`);
  }
  for (const [name, wanted] of [
    ['python3', 'pypy3.10'],
    ['cargo', 'nightly-2026-01-01'],
    ['node', 'lts/unheard'],
    ['ruby', '$(rm -rf /)'],
  ] as const)
    assert.equal(versionRange(name, wanted), null, wanted);
});

test('a version that cannot be had fails with the file that asks for it', () => {
  const result = checkToolchains(asking({ name: 'python3', version: '3.12', source: '.python-version' }), [
    { name: 'python3', version: '3.11.7' },
  ]);
  assert.deepEqual(result, {
    ok: false,
    message: '.python-version asks for python3 3.12, and the machine that builds has 3.11.7.',
    next_step: 'Install python3 3.12 there, or ask for a version that 3.11.7 satisfies in .python-version.',
  });
  assert.ok(
    !checkToolchains(asking({ name: 'python3', version: 'pypy3.10' }), [
      { name: 'python3', version: '3.11.7' },
    ]).ok,
  );
});

test('a tool that is not there fails; one that nobody looked for is left to the build', () => {
  const plan = asking({ name: 'elixir', version: '~> 1.14', source: 'mix.exs' });
  const absent = checkToolchains(plan, [], ['elixir']);
  assert.ok(!absent.ok && /mix\.exs needs elixir ~> 1\.14.*not installed/.test(absent.message));
  assert.ok(checkToolchains(plan, [], ['node']).ok);
});

test('another patch level of a tool that cannot be fetched is used, and said', () => {
  const result = checkToolchains(asking({ name: 'python3', version: '3.11.2', source: '.python-version' }), [
    { name: 'python3', version: '3.11.7' },
  ]);
  assert.ok(result.ok && /pins python3 3\.11\.2; the build uses 3\.11\.7/.test(result.warnings.join()));
});

test('another Node is fetched from npm and comes first for every command', () => {
  const plan = planOf({ ...NODE_APP, '.nvmrc': 'v22.11.0\n' });
  const result = checkToolchains(plan, [{ name: 'node', version: '24.1.0' }]);
  assert.ok(result.ok);
  assert.match(result.warnings.join(), /\.nvmrc asks for Node v22\.11\.0; the machine has 24\.1\.0/);
  assert.match(result.plan.install[0]!, /npm install .*--prefix \.kiln\/runtime\/node .*@"22\.11\.0$/);
  const rest = [...result.plan.install.slice(1), ...result.plan.build, result.plan.start!];
  assert.equal(rest.length, 3);
  for (const command of rest)
    assert.match(command, /^export PATH="\$PWD\/\.kiln\/runtime\/node\/node_modules\/node\/bin:/);
  const same = checkToolchains(plan, [{ name: 'node', version: '22.11.0' }]);
  assert.ok(same.ok && same.plan === plan);
});

test('an old Node comes with the npm of its time, and a range cannot leave its word', () => {
  const old = checkToolchains(asking({ name: 'node', version: '16' }), [{ name: 'node', version: '24.1.0' }]);
  assert.ok(old.ok && / npm@8$/.test(old.plan.install[0]!));
  const range = checkToolchains(asking({ name: 'node', version: '>=16 <17 || $(id)' }), [
    { name: 'node', version: '24.1.0' },
  ]);
  assert.equal(range.ok, false);
  const spaced = checkToolchains(asking({ name: 'node', version: '>=18 <19' }), [
    { name: 'node', version: '24.1.0' },
  ]);
  assert.ok(spaced.ok && spaced.plan.install[0]!.includes(`@"'>=18.0.0 <19.0.0-0'`));
});

test('Go fetches itself since 1.21', () => {
  const plan = asking({ name: 'go', version: '>=1.99', source: 'go.mod' });
  const result = checkToolchains(plan, [{ name: 'go', version: '1.26.8' }]);
  assert.ok(result.ok && /module proxy/.test(result.warnings.join()));
  assert.equal(checkToolchains(plan, [{ name: 'go', version: '1.19.8' }]).ok, false);
});

test('a version that the machine has beside its usual one is used, not fetched', () => {
  const offered = [
    { name: 'node', version: '22.23.3' },
    { name: 'node', version: '24.21.0', bin_dir: '/opt/node/24/bin' },
  ];
  const asked = checkToolchains(asking({ name: 'node', version: '24' }), offered);
  assert.ok(asked.ok);
  const { install, build, start } = asked.plan;
  for (const command of [...install, ...build, start!])
    assert.ok(command.startsWith('export PATH="/opt/node/24/bin:$PATH"; '), command);
  assert.deepEqual(asked.warnings, []);
  const usual = checkToolchains(asking({ name: 'node', version: '>=20' }), offered);
  assert.ok(usual.ok && usual.plan.start === planOf(NODE_APP).start);
  const exact = checkToolchains(asking({ name: 'node', version: '24.1.0' }), offered);
  assert.ok(exact.ok && /node-\$\(node -p .*24\.1\.0/.test(exact.plan.install[0]!));
});

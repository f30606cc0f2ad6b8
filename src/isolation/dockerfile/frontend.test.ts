import assert from 'node:assert/strict';
import { chmod, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { tempDir } from '../../../test/support/folders.ts';
import type { ImageBuildSpec } from '../image-builder.ts';
import { buildctlImageBuilder } from './buildctl.ts';
import { explainImageBuild } from './explain.ts';
import { namedFrontends, refuseFrontend } from './frontend.ts';
import { testSpec } from './self-test.ts';

const OWN = [
  '# syntax=evil/frontend:1',
  '#syntax =evil/frontend:1',
  '#  SYNTAX\t= evil/frontend:1  \r',
  '\uFEFF# syntax=evil/frontend:1',
  '#!/usr/bin/env docker\n# syntax=evil/frontend:1',
  '\uFEFF#!x\n#syntax=evil/frontend:1',
  '# escape=`\n# check=skip=all\n# Syntax=evil/frontend:1',
  // Older BuildKits go on after directives they do not know.
  '# made-by = me\n# syntax=docker/dockerfile:1',
  '# author=me\n# syntax=evil/frontend:1',
  '// syntax=evil/frontend:1',
  '//syntax = evil/frontend:1',
  '#\u0085syntax=evil/frontend:1',
  '# syntax=evil/frontend:1 docker/dockerfile:1',
  '# syntax=docker/dockerfile:1\n// syntax=evil\n',
];

describe('frontends that a Dockerfile names', () => {
  it('are found in every form that BuildKit reads', () => {
    const found = OWN.map((text) => namedFrontends(`${text}\nFROM scratch\n`));
    assert.deepEqual(
      found.map((names) => names.join()),
      OWN.map((text) =>
        text.startsWith('# made-by')
          ? ''
          : text.startsWith('# syntax=docker')
            ? 'docker/dockerfile:1'
            : 'evil/frontend:1',
      ),
    );
    assert.deepEqual(namedFrontends('\n{"Syntax": "evil"}'), ['JSON']);
    assert.deepEqual(namedFrontends('#syntax='), ['']);
  });

  it('are none once a line is no directive', () => {
    for (const text of [
      'FROM scratch\n# syntax=evil',
      '\n# syntax=evil',
      '# a comment\n# syntax=evil',
      ' # syntax=evil',
      '# escape=`\n\n# syntax=evil',
      '#!x\n#!y\n# syntax=evil',
      '// note\n// syntax=evil',
    ])
      assert.deepEqual(namedFrontends(text), [], text);
  });
});

describe('builds with a frontend of their own', async () => {
  const dir = await tempDir('frontend');
  after(() => rm(dir, { recursive: true, force: true }));
  const context_dir = path.join(dir, 'src');
  await mkdir(context_dir);
  let log = '';
  const specOf = (o: Partial<ImageBuildSpec> = {}): ImageBuildSpec => ({
    ...testSpec(context_dir),
    on_output: (_, chunk) => {
      log += chunk;
    },
    ...o,
  });
  const put = (text: string, name = 'Dockerfile') => writeFile(path.join(context_dir, name), text);
  async function refusal(o: Partial<ImageBuildSpec> = {}, network_is_held = false): Promise<string | null> {
    log = '';
    const exit = await refuseFrontend(specOf(o), { network_is_held });
    assert.equal(exit?.exit_code ?? null, log === '' ? null : 1);
    return log === '' ? null : explainImageBuild(log).message;
  }

  it('are refused where the policy would not hold for it, and say so', async () => {
    await put('# syntax=evil/frontend\nFROM scratch\n');
    for (const mode of ['none', 'registries'] as const)
      assert.match(
        (await refusal({ network: { mode, allow: [] } }))!,
        /asks for "evil\/frontend".*network policy/,
      );
    assert.equal(explainImageBuild(log).code, 'DOCKERFILE_INVALID');
    assert.match(explainImageBuild(log).next_step, /docker\/dockerfile/);
    assert.equal(await refusal({ network: { mode: 'open', allow: [] } }), null);
    assert.equal(await refusal({}, true), null);
    await put('{"syntax":"docker/dockerfile:1"}');
    assert.match((await refusal())!, /JSON/);
  });

  it('may use Docker’s own, and nothing that only looks like it', async () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    for (const name of [
      ...['docker/dockerfile', 'docker/dockerfile:1', 'docker.io/docker/dockerfile:1.7-labs'],
      ...[`docker/dockerfile:1@${digest}`, 'docker/dockerfile-upstream:master'],
    ]) {
      await put(`# syntax=${name}\nFROM scratch\n`);
      assert.equal(await refusal(), null, name);
    }
    for (const name of [
      ...[
        'docker/dockerfilex',
        'evil.example/docker/dockerfile:1',
        'docker.io.evil/docker/dockerfile',
        'docker',
      ],
      ...[
        'docker/dockerfile:1\tx',
        'docker/dockerfile/x',
        'localhost:5000/docker/dockerfile',
        'Docker/dockerfile',
      ],
    ]) {
      await put(`# syntax=${name}\nFROM scratch\n`);
      assert.notEqual(await refusal(), null, name);
    }
  });

  it('cannot hide in another file', async () => {
    await put('FROM scratch\n');
    assert.equal(await refusal({ dockerfile: 'none' }), null);
    await put('# syntax=evil\n', 'other');
    await symlink('other', path.join(context_dir, 'link'));
    assert.match((await refusal({ dockerfile: 'link' }))!, /over a link/);
    assert.match((await refusal({ dockerfile: 'other' }))!, /"evil"/);
    await rm(path.join(context_dir, 'Dockerfile'));
    await put('# syntax=evil\n', 'dockerfile');
    assert.match((await refusal())!, /"evil"/);
    await rm(path.join(context_dir, 'dockerfile'));
    await put(`${'# a=b\n'.repeat(200_000)}# syntax=evil\n`);
    assert.match((await refusal())!, /no plain file/);
  });

  it('never come from a build variable, and no client is started', async () => {
    await put('FROM scratch\n');
    const build_args = { BUILDKIT_SYNTAX: 'docker/dockerfile:1' };
    assert.match(
      (await refusal({ build_args, network: { mode: 'open', allow: [] } }, true))!,
      /BUILDKIT_SYNTAX/,
    );
    const client = path.join(dir, 'buildctl');
    await writeFile(client, `#!/bin/sh\ntouch ${dir}/ran\n`);
    await chmod(client, 0o755);
    const builder = buildctlImageBuilder({
      addr: 'unix:///x',
      work_dir: path.join(dir, 'work'),
      buildctl: client,
    });
    const { exit, archive } = await builder.build(specOf({ build_args }));
    assert.deepEqual([exit.exit_code, archive], [1, null]);
    await assert.rejects(async () => (await import('node:fs/promises')).access(path.join(dir, 'ran')));
  });
});

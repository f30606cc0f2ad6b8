import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ExclusionRules, makeExclusion } from './exclude.ts';

const PLAIN: ExclusionRules = { kilnignore: null, output_path: null, include_git: false };
const rules = (of: Partial<ExclusionRules>) => makeExclusion({ ...PLAIN, ...of });

/** 'a/' is a folder, 'a' a file. */
function verdicts(of: Partial<ExclusionRules>, paths: string[]): Record<string, string | null> {
  const exclusion = rules(of);
  return Object.fromEntries(
    paths.map((path) => [path, exclusion(path.replace(/\/$/, ''), path.endsWith('/'))] as const),
  );
}

describe('built-in exclusions', () => {
  it('leaves out what a build makes or brings back, at any depth', () => {
    const out = [
      'node_modules/',
      'apps/web/node_modules/',
      'node_modules',
      'dist/',
      'packages/a/dist/',
      'build/',
      'target/',
      '.next/cache/',
      'apps/web/.next/cache/',
      '__pycache__/',
      'a/b/__pycache__/',
      '.venv/',
      'venv/',
      '.git/',
      '.git',
      '.cache/',
      '.turbo/',
      '.parcel-cache/',
      '.pytest_cache/',
      '.mypy_cache/',
      '.gradle/',
      '_build/',
      '.kiln/',
      '.DS_Store',
      'a/.DS_Store',
    ]; // prettier-ignore
    for (const [path, verdict] of Object.entries(verdicts({}, out))) assert.equal(verdict, 'excluded', path);
  });

  it('keeps code, manifests, and what only looks like an output', () => {
    const kept = [
      'src/',
      'src/index.ts',
      'package-lock.json',
      'public/',
      'build',
      'dist',
      'target',
      'scripts/build',
      'build.ts',
      'src/cache/',
      'cache/',
      '.next/',
      '.next/server/',
      'my-dist/',
      'distribution/',
      'node_modules.md',
      '.gitignore',
      '.github/',
      'deps/',
      '.envrc',
      '.env.example',
      '.env.production',
      '.env.d/',
      'environment/',
    ]; // prettier-ignore
    for (const [path, verdict] of Object.entries(verdicts({}, kept))) assert.equal(verdict, null, path);
  });

  it('gives the verdict of the folder to what is in it', () => {
    assert.equal(rules({})('node_modules/a/index.js', false), 'excluded');
    assert.equal(rules({})('a/dist/src/b', true), 'excluded');
  });

  it('leaves out deps only beside mix.exs', () => {
    const exists = (path: string) => path === 'apps/shop/mix.exs';
    assert.deepEqual(verdicts({ exists }, ['apps/shop/deps/', 'apps/other/deps/', 'deps/']), {
      'apps/shop/deps/': 'excluded',
      'apps/other/deps/': null,
      'deps/': null,
    });
  });

  it('keeps .git when asked to, and outputs that are the content', () => {
    assert.equal(rules({ include_git: true })('.git', true), null);
    assert.deepEqual(
      verdicts({ keep_outputs: true }, ['dist/', 'build/', 'target/', '_build/', 'node_modules/']),
      {
        'dist/': null,
        'build/': null,
        'target/': null,
        '_build/': null,
        'node_modules/': 'excluded',
      },
    );
  });

  it('names secrets apart', () => {
    const secret = [
      '.env',
      '.env.local',
      '.env.production.local',
      'apps/web/.env',
      'apps/web/.env.test.local',
    ];
    for (const [path, verdict] of Object.entries(verdicts({}, secret))) assert.equal(verdict, 'secret', path);
  });
});

describe('.kilnignore', () => {
  it('leaves out more, by the rules of gitignore', () => {
    const kilnignore = '# comment\n*.mp4\n/fixtures\nlogs/\n!keep.mp4\n\\#odd\n';
    const paths = [
      'a.mp4',
      'x/b.mp4',
      'keep.mp4',
      'fixtures/',
      'x/fixtures/',
      'logs/',
      'logs',
      '#odd',
      'A.MP4',
    ];
    assert.deepEqual(verdicts({ kilnignore }, paths), {
      'a.mp4': 'ignored',
      'x/b.mp4': 'ignored',
      'keep.mp4': null,
      'fixtures/': 'ignored',
      'x/fixtures/': null,
      'logs/': 'ignored',
      logs: null,
      '#odd': 'ignored',
      'A.MP4': null,
    });
  });

  it('takes built-in exclusions and secrets back in', () => {
    const kilnignore = '!dist\n!.env\n!/vendor/node_modules/\n';
    const paths = [
      'dist/',
      'dist/a.js',
      '.env',
      'web/.env',
      '.env.local',
      'vendor/node_modules/',
      'node_modules/',
    ];
    assert.deepEqual(verdicts({ kilnignore }, paths), {
      'dist/': null,
      'dist/a.js': null,
      '.env': null,
      'web/.env': null,
      '.env.local': 'secret',
      'vendor/node_modules/': null,
      'node_modules/': 'excluded',
    });
  });

  it('takes Windows line ends and odd names', () => {
    assert.deepEqual(
      verdicts({ kilnignore: '*.log\r\n!dist\r\n' }, ['a.log', 'dist/', '..a', ' b', 'c\nd.log']),
      {
        'a.log': 'ignored',
        'dist/': null,
        '..a': null,
        ' b': null,
        'c\nd.log': 'ignored',
      },
    );
  });
});

describe('the output folder', () => {
  it('is never left out, nor the way to it, but what lies beside the way is', () => {
    const paths = ['target/', 'target/site/', 'target/site/a.html', 'target/debug/', 'target/x.bin', 'dist/'];
    assert.deepEqual(verdicts({ output_path: 'target/site' }, paths), {
      'target/': null,
      'target/site/': null,
      'target/site/a.html': null,
      'target/debug/': 'excluded',
      'target/x.bin': 'excluded',
      'dist/': 'excluded',
    });
  });

  it('keeps outputs inside it, and its dependencies when a tool made it', () => {
    const paths = ['public/build/', 'public/node_modules/', 'public/.DS_Store', 'public/.env'];
    assert.deepEqual(verdicts({ output_path: './public/' }, paths), {
      'public/build/': null,
      'public/node_modules/': 'excluded',
      'public/.DS_Store': 'excluded',
      'public/.env': 'secret',
    });
    const standalone = rules({ output_path: '.next/standalone' });
    assert.equal(standalone('.next/standalone/node_modules', true), null);
    assert.equal(standalone('node_modules', true), 'excluded');
  });

  it('is stronger than .kilnignore, whose finer rules still count inside', () => {
    const of = { output_path: 'web/dist', kilnignore: 'dist\nweb\n*.map\n' };
    assert.deepEqual(
      verdicts(of, ['web/', 'web/dist/', 'web/dist/a.js', 'web/dist/a.js.map', 'web/src/', 'dist/']),
      {
        'web/': null,
        'web/dist/': null,
        'web/dist/a.js': null,
        'web/dist/a.js.map': 'ignored',
        'web/src/': 'ignored',
        'dist/': 'excluded',
      },
    );
  });

  it('protects nothing when it is the root, or points out of it', () => {
    for (const output_path of ['', '.', './', '..', '../dist']) {
      assert.equal(rules({ output_path })('dist', true), 'excluded', output_path);
    }
  });
});

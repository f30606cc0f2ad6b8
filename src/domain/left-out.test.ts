import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leftOutFolder, missingLeftOut } from './left-out.ts';

test('the folder of a path that is left out', () => {
  assert.equal(leftOutFolder('dist/index.js'), 'dist');
  assert.equal(leftOutFolder('/workspace/src/build/m.js'), 'src/build');
  assert.equal(leftOutFolder('./lib/target'), 'lib/target');
  for (const path of [
    'src/builder/m.js',
    '/usr/lib/build/x',
    'node_modules/a/dist/b.js',
    '../dist/x',
    'a.js',
  ])
    assert.equal(leftOutFolder(path), null, path);
});

test('what a log says is missing', () => {
  const folder = (line: string) => missingLeftOut(['starting', line])?.folder ?? null;
  assert.equal(folder("Error: Cannot find module '/workspace/dist/index.js'"), 'dist');
  assert.equal(folder("Cannot find module './src/build/m.js'"), 'src/build');
  assert.equal(folder("ModuleNotFoundError: No module named 'shop.build.tools'"), 'shop/build');
  assert.equal(folder("ModuleNotFoundError: No module named 'build'"), 'build');
  assert.equal(
    folder('main.go:3:8: package app/build is not in std (/usr/local/go/src/app/build)'),
    'app/build',
  );
  assert.equal(folder('Could not resolve "./build/a.js" from "src/main.js"'), 'build');
  assert.equal(folder("ENOENT: no such file or directory, open '/workspace/target/x.json'"), 'target');
  assert.equal(folder('main.go:9:12: pattern dist/*: no matching files found'), 'dist');
  assert.equal(folder('web/fs.go:5:12: pattern all:build: no matching files found'), 'build');
  for (const line of [
    'main.go:9:12: pattern static/*: no matching files found',
    "Cannot find module 'express'",
    "Cannot find module '/workspace/node_modules/x/dist/index.js'",
    'sh: 1: build: not found',
    'error Command "build" not found.',
    'npm ERR! Missing script: "build"',
    'built in 3 s: dist/index.html',
    'Module not found: required by build/x.js:3',
  ])
    assert.equal(folder(line), null, line);
});

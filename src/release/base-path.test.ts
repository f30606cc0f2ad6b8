import assert from 'node:assert/strict';
import { test } from 'node:test';
import { misplacedBase } from './base-path.ts';

const site =
  (...files: string[]) =>
  (path: string) =>
    files.includes(path);

test('a page that asks for its files below a path where they are not', () => {
  const html =
    '<link rel=stylesheet href="/portal/assets/a.css"><script type="module" crossorigin src="/portal/assets/index-Dx.js"></script>';
  assert.deepEqual(misplacedBase(html, site('index.html', 'assets/a.css', 'assets/index-Dx.js')), {
    base: '/portal',
    asked: '/portal/assets/a.css',
  });
  const deep = '<script src=/org/repo/static/js/main.js></script>';
  assert.equal(misplacedBase(deep, site('static/js/main.js'))?.base, '/org/repo');
});

test('a base element moves what the page names relatively', () => {
  const html = '<base href="/shop/"><script src="main.js"></script>';
  assert.equal(misplacedBase(html, site('main.js'))?.base, '/shop');
  assert.equal(misplacedBase('<base href="/"><script src="main.js"></script>', site('main.js')), null);
});

test('no word about pages that get their files, files that are nowhere, and other hosts', () => {
  const files = site('assets/a.js', 'schöner name.js', 'b/assets/a.js');
  for (const html of [
    '<script src="/assets/a.js?v=1"></script><script src="/x/assets/a.js"></script>',
    '<script src="/_vercel/insights/script.js"></script>',
    '<script src="https://cdn.example/portal/assets/a.js"></script>',
    '<script src="//cdn.example/portal/assets/a.js"></script>',
    '<script src="./assets/a.js"></script>',
    '<script src="/sch%C3%B6ner%20name.js"></script>',
    '<script src="/b/assets/a.js"></script>',
    '<script src="/%E0%A4%A.js"></script>',
    '<script>import("/portal/assets/a.js")</script>',
    '',
  ])
    assert.equal(misplacedBase(html, files), null, html);
});

test('a hostile page costs no time to speak of', () => {
  for (const html of [
    '<script '.repeat(50_000),
    `<base ${'href="/'.repeat(50_000)}`,
    '<link href='.repeat(50_000),
  ])
    assert.equal(
      misplacedBase(html, () => false),
      null,
    );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StaticFile } from '../release/static-site.ts';
import { contentType, resolveStatic, type StaticRequest } from './static-path.ts';

function site(...paths: string[]) {
  const files = new Map<string, StaticFile>();
  for (const path of paths) files.set(path, { path, offset: 512, size: 1, sha256: 'a'.repeat(64) });
  return { lookup: (path: string) => files.get(path) };
}

/** What answers, in short: `200 path`, `404 path`, `308 location`, `missing`, `bad_path`. */
function resolve(of: ReturnType<typeof site>, path: string, more: Partial<StaticRequest> = {}): string {
  const answer = resolveStatic(of, { path, accepts_html: true, spa_fallback: null, ...more });
  if (answer.kind === 'file') return `${answer.status} ${answer.file.path}`;
  return answer.kind === 'redirect' ? `308 ${answer.location}` : answer.kind;
}

function caching(path: string): string {
  const answer = resolveStatic(site(path), { path: `/${path}`, accepts_html: true, spa_fallback: null });
  assert.equal(answer.kind, 'file');
  return answer.kind === 'file' ? answer.cache_control : '';
}

test('files, index files, clean URLs and the slash', () => {
  const docs = site(
    'index.html',
    'about.html',
    'docs/index.html',
    'blog.html',
    'blog/index.html',
    'a b/é.txt',
  );
  assert.equal(resolve(docs, '/'), '200 index.html');
  assert.equal(resolve(docs, '/index.html'), '200 index.html');
  assert.equal(resolve(docs, '/about'), '200 about.html');
  assert.equal(resolve(docs, '/about.html?x'), '200 about.html');
  assert.equal(resolve(docs, '/about/'), '308 /about');
  assert.equal(resolve(docs, '/docs/'), '200 docs/index.html');
  assert.equal(resolve(docs, '/docs'), '308 /docs/');
  assert.equal(resolve(docs, '/docs?a=1&b=/'), '308 /docs/?a=1&b=/');
  assert.equal(resolve(docs, '/blog'), '200 blog.html');
  assert.equal(resolve(docs, '/blog/'), '200 blog/index.html');
  assert.equal(resolve(docs, '/a%20b/%C3%A9.txt'), '200 a b/é.txt');
  assert.equal(resolve(docs, '/nope'), 'missing');
});

test('a redirect never leads to another host', () => {
  const evil = site('evil.com/index.html', 'about.html');
  assert.equal(resolve(evil, '//evil.com'), 'missing');
  assert.equal(resolve(evil, '/%2Fevil.com'), 'missing');
  assert.equal(resolve(evil, '//evil.com/..'), 'bad_path');
  assert.equal(resolve(evil, '/\\evil.com'), 'bad_path');
  assert.equal(resolve(evil, '/about%2f'), '308 /about');
});

test('dot files are never served, except under /.well-known/', () => {
  const paths = ['.env', 'a/.git/config', '.well-known/security.txt', '.well-known/.secret', '.htaccess'];
  const dots = site(...paths, 'index.html');
  for (const path of ['/.env', '/%2eenv', '/a/.git/config', '/.well-known/.secret', '/.htaccess']) {
    assert.equal(resolve(dots, path), 'missing', path);
  }
  assert.equal(resolve(dots, '/.well-known/security.txt'), '200 .well-known/security.txt');
});

test('a single-page app answers pages, never assets', () => {
  const spa = site('index.html', '404.html', 'assets/app-3f2a1b9c.js');
  const at = (path: string, accepts_html = true) =>
    resolve(spa, path, { spa_fallback: 'index.html', accepts_html });
  assert.equal(at('/users/42'), '200 index.html');
  assert.equal(at('/v1.2'), '200 index.html');
  assert.equal(at('/old/page.html'), '200 index.html');
  for (const asset of [
    '/assets/x.js',
    '/assets/x',
    '/app.css',
    '/img/logo.png',
    '/_next/x',
    '/static/y',
    '/favicon.ico',
  ]) {
    assert.equal(at(asset), 'missing', asset);
  }
  assert.equal(at('/users/42', false), 'missing');
  assert.equal(at('/.env'), 'missing');
  assert.equal(at('/.hidden'), 'missing');
  assert.equal(resolve(spa, '/users', { spa_fallback: 'gone.html' }), '404 404.html');
});

test('404.html answers with status 404, and not for assets', () => {
  const pages = site('index.html', '404.html');
  assert.equal(resolve(pages, '/nope'), '404 404.html');
  assert.equal(resolve(pages, '/nope.js'), 'missing');
});

test('only names that are surely made from the content are cached for good', () => {
  const forever = 'public, max-age=31536000, immutable';
  for (const path of [
    'assets/x-3f2a1b9c.js',
    'assets/index-BxQ2_kZ9.css',
    'static/js/main.3f2a1b9c.chunk.js',
    '_next/static/chunks/main.js',
    '_astro/hoisted.js',
    '_app/immutable/start.js',
  ]) {
    assert.equal(caching(path), forever, path);
  }
  for (const path of [
    'index.html',
    'assets/app.js',
    'assets/my-document.pdf',
    'assets/my-Document.pdf',
    'assets/photo-20240101.jpg',
    'assets/flyer-Summer24.pdf',
    'assets/report-24Summer.pdf',
    'app-3f2a1b9c.js',
    'assets/deadbeef.js',
  ]) {
    assert.equal(caching(path), 'no-cache', path);
  }
});

test('content types', () => {
  assert.equal(contentType('a/index.html'), 'text/html; charset=utf-8');
  assert.equal(contentType('a.js'), 'text/javascript; charset=utf-8');
  assert.equal(contentType('a.JSON'), 'application/json; charset=utf-8');
  assert.equal(contentType('a.svg'), 'image/svg+xml; charset=utf-8');
  assert.equal(contentType('a.wasm'), 'application/wasm');
  assert.equal(contentType('a.png'), 'image/png');
  assert.equal(contentType('LICENSE'), 'application/octet-stream');
  assert.equal(contentType('.well-known/apple-app-site-association'), 'application/json');
});

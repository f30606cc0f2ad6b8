import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodePath, readTarget } from './target.ts';

function target(host: string | undefined, url: string, more: string[] = []) {
  const rawHeaders = [...(host === undefined ? [] : ['Host', host]), ...more];
  return readTarget({ headers: { host }, rawHeaders, url } as unknown as IncomingMessage);
}

test('the host is found in any case, with or without port and last dot', () => {
  for (const host of [
    'shop.acme.localhost',
    'SHOP.Acme.localhost:7080',
    'shop.acme.localhost.',
    'shop.acme.localhost.:80',
  ]) {
    assert.equal(target(host, '/')?.host, 'shop.acme.localhost', host);
  }
  assert.equal(target('127.0.0.1:7080', '/')?.host, '127.0.0.1');
  assert.equal(target('[::1]:7080', '/')?.host, '[::1]');
  assert.equal(target('a.b:80', '/x?y=1')?.path, '/x?y=1');
});

test('hostile hosts are refused', () => {
  const hosts = [
    '',
    ' ',
    'a b',
    'a/b',
    'a@b',
    'a..b\r\nx: y',
    '<script>',
    'a:99999999',
    'a:b',
    'a,b',
    'ä.de',
  ];
  for (const host of [...hosts, undefined, '.a', '-a', `${'a'.repeat(300)}.b`, 'a\0b', '[::1', '"']) {
    assert.equal(target(host, '/'), null, JSON.stringify(host));
  }
});

test('two Host headers are refused: who reads the request next may believe the other one', () => {
  assert.equal(target('a.b', '/', ['X-A', 'b'])?.host, 'a.b');
  assert.equal(target('a.b', '/', ['X-A', 'b', 'hOST', 'c.d']), null);
  assert.equal(target('a.b', '/', ['Host', 'a.b']), null);
});

test('an absolute target must agree with the Host header', () => {
  assert.equal(target('a.b', 'http://A.B/x')?.path, '/x');
  assert.equal(target('a.b', 'http://a.b?q')?.path, '/?q');
  assert.equal(target('a.b', 'http://evil/x'), null);
  assert.equal(target('a.b', '*'), null);
  assert.equal(target('a.b', 'x'), null);
});

test('a decoded path never leaves the release', () => {
  const refused = [
    '/..',
    '/../x',
    '/a/..',
    '/a/%2e%2e/b',
    '/%2E%2e%2fx',
    '/.',
    '/a/./b',
    '/a%00',
    '/a\\b',
    '/%5c',
    '/%',
    '/%zz',
    '/%c3',
  ];
  for (const path of refused) assert.equal(decodePath(path), null, path);
  assert.equal(decodePath('/caf%C3%A9/a%20b?x=%00'), 'café/a b');
  assert.equal(decodePath('/...'), '...');
  assert.equal(decodePath('/a..b/'), 'a..b/');
  fc.assert(
    fc.property(fc.string(), fc.webPath(), (text, web) => {
      for (const raw of [`/${text}`, web, `/${encodeURIComponent(text.toWellFormed())}`]) {
        const path = decodePath(raw);
        if (path === null) continue;
        assert.ok(!path.split('/').some((segment) => segment === '..' || segment === '.'));
        assert.ok(!/[\0\\]/.test(path));
      }
    }),
  );
});

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { KilnError } from '../../domain/errors.ts';
import { apiHost, formatReference, isLoopback, parseReference } from './reference.ts';

const DIGEST = `sha256:${'a1'.repeat(32)}`;

it('reads names as Docker does', () => {
  const of = (text: string) => formatReference(parseReference(text));
  assert.equal(of('node'), 'docker.io/library/node:latest');
  assert.equal(of('team/app:1.0'), 'docker.io/team/app:1.0');
  assert.equal(of(`node@${DIGEST}`), `docker.io/library/node@${DIGEST}`);
  assert.equal(of('index.docker.io/node'), 'docker.io/library/node:latest');
  assert.equal(of('localhost/app'), 'localhost/app:latest');
  assert.equal(of('localhost:5000/app'), 'localhost:5000/app:latest');
  assert.equal(of('[::1]:5000/a/b:t'), '[::1]:5000/a/b:t');
  assert.equal(of(`ghcr.io/a/b__c/d--e:v1@${DIGEST}`), `ghcr.io/a/b__c/d--e:v1@${DIGEST}`);
  assert.equal(apiHost('docker.io'), 'registry-1.docker.io');
});

it('refuses what could mean something else in a URL or a shell', () => {
  const wrong = [
    ...[
      '',
      '/',
      'App',
      'a//b',
      'a/',
      '/a',
      'a:',
      'a@',
      'a:b:c',
      'a b',
      '../a',
      'a/../b',
      'host.io/',
      'a_',
      '-a',
      'a..b',
    ],
    ...[
      'host.io:99999/a',
      'ho_st.io/a',
      'user@host.io/a',
      'http://host.io/a',
      'host.io/a?x=1',
      'host.io/a#x',
      'a%2fb',
    ],
    ...[
      `a@sha256:${'A'.repeat(64)}`,
      'a@sha256:12',
      'a@md5:0',
      `a:${'t'.repeat(129)}`,
      'a'.repeat(256),
      'x'.repeat(2000),
    ],
    ...['a\n', 'a:t\n', 'host.io\n/a', '[::1/a', '.io/a', 'a.-b.io/c'],
  ];
  for (const text of wrong)
    assert.throws(
      () => parseReference(text),
      (error) => error instanceof KilnError && error.code === 'VALIDATION_ERROR',
      text,
    );
});

it('knows loopback from what only looks like it', () => {
  for (const host of ['localhost', 'localhost:5000', '127.0.0.1:1', '127.1.2.3', '[::1]:80'])
    assert.ok(isLoopback(host), host);
  for (const host of ['localhost.example.com', '127.0.0.1.nip.io', '128.0.0.1', '10.0.0.1', '[::2]'])
    assert.ok(!isLoopback(host), host);
});

const part = fc.stringMatching(/^[a-z0-9]{1,8}((\.|_|__|-|--)[a-z0-9]{1,5}){0,2}$/);
const host = fc.oneof(
  fc.constantFrom('localhost', 'localhost:5000', '[::1]:5000', '127.0.0.1:80', 'docker.io'),
  fc.stringMatching(/^[a-z0-9]{1,8}(\.[a-z]{2,5}){1,2}(:[1-9][0-9]{0,3})?$/),
);

it('gives back what it read', () => {
  fc.assert(
    fc.property(
      host,
      fc.array(part, { minLength: 1, maxLength: 4 }),
      fc.option(fc.stringMatching(/^[\w][\w.-]{0,20}$/)),
      fc.option(fc.stringMatching(/^[0-9a-f]{64}$/).map((hex) => `sha256:${hex}`)),
      (host, parts, tag, digest) => {
        const repository = parts.join('/');
        const text = formatReference({ host, repository, tag, digest });
        const read = parseReference(text);
        assert.equal(read.host, host);
        assert.equal(
          read.repository,
          host === 'docker.io' && parts.length === 1 ? `library/${repository}` : repository,
        );
        assert.deepEqual([read.tag, read.digest], [tag ?? (digest ? null : 'latest'), digest]);
        assert.deepEqual(parseReference(formatReference(read)), read);
      },
    ),
  );
});

it('never gives parts that could leave their place in a URL', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-z.:@/_%?#[\]-]{1,30}$/)), (text) => {
      try {
        const { host, repository, tag } = parseReference(text);
        const url = new URL(`https://${host}/v2/${repository}/manifests/${tag ?? 'x'}`);
        assert.equal(url.pathname, `/v2/${repository}/manifests/${tag ?? 'x'}`);
        assert.equal(url.username + url.password + url.search + url.hash, '');
      } catch (error) {
        assert.ok(error instanceof KilnError, String(error));
      }
    }),
  );
});

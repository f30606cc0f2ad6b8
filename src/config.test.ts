import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readConfig } from './config.ts';

test('a base domain is a host name', () => {
  assert.equal(readConfig({}, { 'base-domain': 'Apps.Example.com' }).base_domain, 'apps.example.com');
  assert.equal(readConfig({}).base_domain, 'localhost');
  for (const wrong of ['a_b!', 'a..b', '-a', 'https://a.b', 'a.b:80', 'a.'])
    assert.throws(() => readConfig({}, { 'base-domain': wrong }), /--base-domain takes a host name/, wrong);
});

test('a database is a Postgres; the complaint does not repeat a password', () => {
  const url = 'postgres://me:hunter2@db/x';
  assert.equal(readConfig({ KILN_DATABASE: url }).database_url, url);
  assert.equal(readConfig({}, { database: 'postgresql:///x?host=/run' }).database_url?.length, 25);
  assert.throws(
    () => readConfig({}, { database: 'mysql://me:hunter2@db/x' }),
    (error: Error) => /--database takes postgres:\/\//.test(error.message) && !/hunter2/.test(error.message),
  );
});

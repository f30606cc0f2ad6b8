import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openAnswers } from './answers.ts';
import {
  forImage,
  forKind,
  LINK_FOLDERS,
  npmConfig,
  npmNodedir,
  pipConfig,
  readRegistrySettings,
  withoutCredentials,
} from './registry.ts';

describe('registry settings', () => {
  it('cuts credentials out of every URL', () => {
    assert.equal(withoutCredentials('https://u:p@host/x'), 'https://host/x');
    assert.equal(withoutCredentials('https://tok@a.b:8080/x http://u:p@c/'), 'https://a.b:8080/x http://c/');
    assert.equal(withoutCredentials('https://a,https://u:p@b|direct'), 'https://a,https://b|direct');
    assert.equal(withoutCredentials('https://host/@scope/pkg'), 'https://host/@scope/pkg');
  });

  it('keeps only registry lines of npm configuration', () => {
    const lines = [
      'registry = https://u:p@npm.example/',
      '@acme:registry=https://acme.example/',
      '//npm.example/:_authToken=secret',
      '_auth=secret',
      'email=me@example.com',
      'script-shell=/bin/evil',
      'strict-ssl=false',
    ];
    const kept = 'registry = https://npm.example/\n@acme:registry=https://acme.example/\nstrict-ssl=false\n';
    assert.equal(npmConfig(lines, false), kept);
    assert.match(npmConfig(lines, true), /u:p@npm.example\/\n(.*\n)*.*_authToken=secret/);
    assert.doesNotMatch(npmConfig(lines, true), /script-shell|email/);
  });

  it('keeps the host’s own system out of images', () => {
    const env = {
      ...{ npm_package_config_node_gyp_nodedir: '/usr', SSL_CERT_DIR: '/etc/ssl/certs' },
      ...{ PIP_FIND_LINKS: '/opt/wheels', SSL_CERT_FILE: '/etc/ssl/ca.pem', GOPROXY: 'https://go.example' },
    };
    const settings = { env, files: [], paths: ['/usr', '/etc/ssl/certs', '/opt/wheels', '/etc/ssl/ca.pem'] };
    const { paths } = forImage(settings);
    assert.deepEqual(paths.sort(), ['/etc/ssl/ca.pem', '/opt/wheels']);
    const copied = forImage(settings, LINK_FOLDERS);
    assert.deepEqual(copied.paths, ['/etc/ssl/ca.pem']);
    assert.deepEqual(copied.env, { SSL_CERT_FILE: '/etc/ssl/ca.pem', GOPROXY: 'https://go.example' });
  });

  it('hands the headers of Node to node-gyp in a way that npm does not warn about', () => {
    const lines = ['nodedir=/usr', 'nodedir = /opt/node 24 ', 'nodedir=relative'];
    assert.equal(npmNodedir(lines), '/opt/node 24');
    assert.equal(npmNodedir(['x=nodedir=/usr']), null);
    assert.equal(npmConfig(lines, true), '');
  });

  it('merges pip configuration, with values over several lines', () => {
    const lines = [
      '[global]',
      'index-url = https://u:p@pypi.example/simple',
      'extra-index-url =',
      '    https://u:p@one.example/',
      '    https://two.example/',
      'no-cache-dir = true',
      '[install]',
      'cert: /etc/ca.pem',
    ];
    const text = pipConfig(lines, false);
    assert.match(text, /^\[global\]\nindex-url = https:\/\/pypi\.example\/simple\n/);
    assert.match(text, /extra-index-url = \n {4}https:\/\/one\.example\/\n {4}https:\/\/two\.example\/\n/);
    assert.match(text, /cert = \/etc\/ca\.pem/);
    assert.doesNotMatch(text, /no-cache-dir|u:p/);
    assert.equal(pipConfig([], false), '');
  });

  it('takes nothing else of the environment, and only certificates for instances', async () => {
    const home = await mkdtemp(join(tmpdir(), 'kiln-registry-'));
    await mkdir(join(home, '.config/pip'), { recursive: true });
    await writeFile(join(home, '.config/pip/pip.conf'), '[global]\nfind-links = /srv/wheels\n');
    const host_env = {
      HOME: home,
      PATH: '/nowhere',
      AWS_SECRET_ACCESS_KEY: 'x',
      SSL_CERT_FILE: '/srv/ca.pem',
      PIP_INDEX_URL: 'https://u:p@pypi.example/',
      HTTPS_PROXY: 'http://u:p@proxy:3128',
    };
    const settings = await readRegistrySettings({ data_dir: '/d', work_dir: '/d/w', host_env });
    await rm(home, { recursive: true });
    assert.deepEqual(settings.env, {
      SSL_CERT_FILE: '/srv/ca.pem',
      PIP_INDEX_URL: 'https://pypi.example/',
      HTTPS_PROXY: 'http://proxy:3128',
    });
    assert.ok(settings.paths.includes('/srv/ca.pem') && settings.paths.includes('/srv/wheels'));
    assert.equal(forKind(settings, 'build'), settings);
    assert.deepEqual(forKind(settings, 'instance'), {
      env: { SSL_CERT_FILE: '/srv/ca.pem' },
      files: [],
      paths: ['/srv/ca.pem'],
    });
  });

  it('remembers what Go says until its settings change, but nothing with credentials in it', async () => {
    const dir = await realpath(await mkdtemp(join(tmpdir(), 'kiln-registry-')));
    const go = join(dir, 'go/bin/go');
    const log = join(dir, 'asked');
    await mkdir(join(dir, 'go/bin'), { recursive: true });
    const goSays = async (proxy: string) => {
      const json = JSON.stringify({ GOROOT: join(dir, 'go'), GOPROXY: proxy, GOFLAGS: '' });
      await writeFile(go, `#!/bin/sh\necho >> ${log}\necho '${json}'\n`, { mode: 0o755 });
    };
    const settings = async () => {
      await rm(log, { force: true });
      const answers = openAnswers(join(dir, 'programs.json'), () => Date.now() + 60_000);
      const host_env = { HOME: dir, PATH: join(dir, 'go/bin') };
      const options = {
        data_dir: '/d',
        work_dir: '/d/w',
        host_env,
        answers,
        pass_registry_credentials: true,
      };
      const [{ env }] = await Promise.all([readRegistrySettings(options), readRegistrySettings(options)]);
      await answers.keep();
      const asked = (await readFile(log, 'utf8').catch(() => '')).length;
      return { env, asked };
    };
    try {
      await goSays('https://one.example');
      const one = { GOPROXY: 'https://one.example' };
      assert.deepEqual(await settings(), { env: one, asked: 1 });
      assert.deepEqual(await settings(), { env: one, asked: 0 });
      await mkdir(join(dir, '.config/go'), { recursive: true });
      await writeFile(join(dir, '.config/go/env'), 'GOPROXY=…\n');
      assert.deepEqual(await settings(), { env: one, asked: 1 });
      await goSays('https://u:p@two.example');
      const two = { GOPROXY: 'https://u:p@two.example' };
      assert.deepEqual(await settings(), { env: two, asked: 1 });
      assert.deepEqual(await settings(), { env: two, asked: 1 });
      assert.doesNotMatch(await readFile(join(dir, 'programs.json'), 'utf8'), /u:p/);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { NetworkPolicy } from './policy.ts';
import { makeRules, parseRule, parseTarget } from './rules.ts';

const lets = (policy: NetworkPolicy, host: string, port = 443, registries: string[] = []) =>
  makeRules(policy, registries).host({ host, port }).ok;
const use = (allow: string[], host: string, addresses: string[], port = 443) =>
  makeRules({ mode: 'open', allow }, []).addresses({ host, port }, addresses).use;

describe('network rules', () => {
  it('reads hosts, wildcards, ports and addresses, and refuses the rest', () => {
    assert.deepEqual(parseRule('*.Example.com:8443'), { host: 'example.com', wildcard: true, port: 8443 });
    assert.deepEqual(parseRule('10.0.0.7'), { host: '10.0.0.7', wildcard: false, port: null });
    assert.deepEqual(parseRule('[FD00::1]:81'), { host: 'fd00::1', wildcard: false, port: 81 });
    assert.deepEqual(parseRule('fd00::1'), { host: 'fd00::1', wildcard: false, port: null });
    for (const text of ['', '*', 'a b', 'host:0', 'host:70000', 'http://host/', '*.*.x', 'a..b', 'x\ny'])
      assert.throws(() => parseRule(text), /is no network rule/, text);
  });

  it('reads targets strictly', () => {
    assert.deepEqual(parseTarget('Registry.NPMjs.org.:443'), { host: 'registry.npmjs.org', port: 443 });
    assert.deepEqual(parseTarget('[::FFFF:1.2.3.4]:80'), { host: '::ffff:102:304', port: 80 });
    for (const text of [
      'host',
      'host:0',
      'host:65536',
      ':443',
      'a:b@c:443',
      '::1:443',
      'a\r\nb:1',
      'hö:443',
      '',
    ])
      assert.equal(parseTarget(text), null, JSON.stringify(text));
  });

  it('none lets nothing out, not even what is allowed', () => {
    assert.equal(lets({ mode: 'none', allow: ['a.example'] }, 'a.example', 443, ['b.example:443']), false);
    assert.equal(lets({ mode: 'none', allow: [] }, 'b.example', 443, ['b.example:443']), false);
  });

  it('registries lets out to registries, named hosts and what the host itself is pointed at', () => {
    const policy: NetworkPolicy = {
      mode: 'registries',
      allow: ['a.example', '*.b.example', 'c.example:5000'],
    };
    for (const host of ['registry.npmjs.org', 'pypi.org', 'a.example', 'x.b.example', 'x.y.b.example'])
      assert.equal(lets(policy, host), true, host);
    for (const host of [
      'b.example',
      'evil.example',
      'xa.example',
      'registry.npmjs.org.evil.example',
      'c.example',
    ])
      assert.equal(lets(policy, host), false, host);
    assert.equal(lets(policy, 'c.example', 5000), true);
    assert.equal(lets(policy, 'a.example', 22), false);
    assert.equal(lets(policy, 'mirror.corp', 4873, ['mirror.corp:4873']), true);
    assert.equal(lets(policy, 'mirror.corp', 443, ['mirror.corp:4873']), false);
  });

  it('open lets out to the ports of the web, and to named ones', () => {
    assert.equal(lets({ mode: 'open', allow: [] }, 'any.example'), true);
    assert.equal(lets({ mode: 'open', allow: [] }, 'any.example', 25), false);
    assert.equal(lets({ mode: 'open', allow: ['any.example:25'] }, 'any.example', 25), true);
  });

  it('keeps only addresses that may be reached', () => {
    assert.deepEqual(use([], 'a.example', ['10.0.0.1', '1.1.1.1', '::1', '169.254.169.254']), ['1.1.1.1']);
    assert.deepEqual(use([], '127.0.0.1', ['127.0.0.1']), []);
    // An exact name opens this host and private ranges, a wildcard private ranges, an address itself.
    assert.deepEqual(use(['a.example'], 'a.example', ['127.0.0.1', '10.0.0.1']), ['127.0.0.1', '10.0.0.1']);
    assert.deepEqual(use(['*.example'], 'a.example', ['127.0.0.1', '10.0.0.1']), ['10.0.0.1']);
    assert.deepEqual(use(['a.example'], 'a.example', ['169.254.169.254', '224.0.0.1']), []);
    assert.deepEqual(use(['169.254.169.254'], 'a.example', ['169.254.169.254']), ['169.254.169.254']);
    assert.deepEqual(use(['10.0.0.1:5432'], 'db.example', ['10.0.0.1'], 443), []);
    assert.deepEqual(use(['224.0.0.1'], '224.0.0.1', ['224.0.0.1']), []);
    const none = makeRules({ mode: 'open', allow: [] }, []).addresses({ host: 'x', port: 80 }, []);
    assert.equal(none.verdict.ok, false);
  });
});

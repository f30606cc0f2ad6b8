import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { makeRedactor, redactText } from './redact.ts';

describe('redactText', () => {
  it('hides values and keeps the rest', () => {
    assert.equal(redactText('key=hunter22;', ['hunter22']), 'key=[redacted];');
    assert.equal(redactText('nothing here', ['hunter22']), 'nothing here');
    assert.equal(redactText('a hunter22 b hunter22', ['hunter22']), 'a [redacted] b [redacted]');
  });

  it('ignores values shorter than 4 characters and takes 4', () => {
    assert.equal(redactText('abc abcd', ['abc', '', 'abcd']), 'abc [redacted]');
  });

  it('takes the longest match first', () => {
    assert.equal(redactText('token-long token', ['token', 'token-long']), '[redacted] [redacted]');
  });

  it('treats characters of regular expressions as text', () => {
    assert.equal(redactText('a.b*c[d]$^ aXb*c', ['a.b*c[d]$^']), '[redacted] aXb*c');
  });

  it('hides encoded forms', () => {
    const secret = 'p@ss w/"rd+1ü';
    const encoded = encodeURIComponent(secret);
    for (const form of [
      encoded,
      encoded.replaceAll('%20', '+'),
      Buffer.from(secret).toString('base64'),
      Buffer.from(secret).toString('base64url'),
      JSON.stringify(secret).slice(1, -1),
    ])
      assert.equal(redactText(`<${form}>`, [secret]), '<[redacted]>', form);
  });

  it('hides the secret inside basic authentication of any user name length', () => {
    const secret = 'correct-horse-battery';
    for (const user of ['a', 'ab', 'abc', 'abcd']) {
      const header = Buffer.from(`${user}:${secret}`).toString('base64');
      const shown = redactText(header, [secret]).replace('[redacted]', '');
      assert.ok(shown.length <= header.length - 26, `${shown} shows too much of ${header}`);
    }
  });

  it('hides the lines of a multi-line secret, long ones one by one', () => {
    const secret = '-----BEGIN KEY-----\nabcdefghij\nxyz\n-----END KEY-----';
    assert.equal(redactText(`1 ${secret} 2`, [secret]), '1 [redacted] 2');
    assert.equal(redactText('  abcdefghij\n  xyz\n', [secret]), '  [redacted]\n  xyz\n');
  });
});

describe('makeRedactor', () => {
  it('finds a secret across chunk borders and inside split UTF-8', () => {
    const redactor = makeRedactor(['geheim-schlüssel']);
    const bytes = Buffer.from('vor geheim-schlüssel nach ü');
    let out = '';
    for (const byte of bytes) out += redactor.push(Buffer.from([byte]));
    assert.equal(out + redactor.flush(), 'vor [redacted] nach ü');
  });

  it('holds back nothing but the possible start of a secret', () => {
    const redactor = makeRedactor(['secret-value']);
    assert.equal(redactor.push('ordinary line\n'), 'ordinary line\n');
    assert.equal(redactor.push('a secret-'), 'a ');
    assert.equal(redactor.push('santa\n'), 'secret-santa\n');
    assert.equal(redactor.push('tail sec'), 'tail ');
    assert.equal(redactor.flush(), 'sec');
  });

  it('waits for a longer secret that starts with a shorter one', () => {
    const redactor = makeRedactor(['abcd', 'abcdef']);
    assert.equal(redactor.push('abcd'), '');
    assert.equal(redactor.push('ef!'), '[redacted]!');
  });

  it('gives the same result however the text is cut', () => {
    const letter = fc.constantFrom('a', 'b', 'ü', '\n', '%');
    const word = fc.string({ unit: letter, minLength: 4, maxLength: 9 });
    fc.assert(
      fc.property(
        fc.array(word, { minLength: 1, maxLength: 4 }),
        fc.array(fc.string({ unit: letter, maxLength: 12 }), { maxLength: 12 }),
        fc.infiniteStream(fc.nat(7)),
        (secrets, parts, cuts) => {
          const text = parts.map((part, index) => part + (secrets[index] ?? '')).join('');
          const redactor = makeRedactor(secrets);
          const bytes = Buffer.from(text);
          let out = '';
          for (let at = 0; at < bytes.length; ) {
            const size = 1 + (cuts.next().value as number);
            out += redactor.push(bytes.subarray(at, at + size));
            at += size;
          }
          assert.equal(out + redactor.flush(), redactText(text, secrets));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('never lets a whole secret through', () => {
    const letter = fc.constantFrom('a', 'b', 'c');
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: letter, minLength: 4, maxLength: 6 }), { minLength: 1, maxLength: 3 }),
        fc.string({ unit: letter, maxLength: 60 }),
        (secrets, text) => {
          const shown = redactText(text, secrets).split('[redacted]');
          for (const secret of secrets) assert.ok(!shown.some((part) => part.includes(secret)));
        },
      ),
    );
  });

  it('is quick with many secrets and much text', () => {
    const secrets = Array.from({ length: 100 }, (_, n) => `secret-number-${n}-${'x'.repeat(40)}`);
    const redactor = makeRedactor(secrets);
    const chunk = Buffer.from('GET /some/path?with=parameters HTTP/1.1 200 seconds\n'.repeat(1000));
    const started = process.threadCpuUsage();
    for (let n = 0; n < 20; n++) redactor.push(chunk);
    const { user, system } = process.threadCpuUsage(started);
    const took_ms = (user + system) / 1000;
    assert.ok(took_ms < 2000, `1 MB took ${took_ms} ms`);
  });
});

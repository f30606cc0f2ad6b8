import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { jsonText, storableText } from './db.ts';

test('JSON for the database has neither NUL nor half a character, and everything else as it was', () => {
  const cases: [unknown, unknown][] = [
    ['a\0b', 'a\ufffdb'],
    ['\0\0', '\ufffd\ufffd'],
    ['\\u0000', '\\u0000'],
    ['\\\0', '\\\ufffd'],
    ['\\\\u0000', '\\\\u0000'],
    ['\ud83d!', '\ufffd!'],
    ['!\ude00', '!\ufffd'],
    ['😀\u0001\u001f', '😀\u0001\u001f'],
    [{ '\0': ['\udfff'] }, { '\ufffd': ['\ufffd'] }],
  ];
  for (const [given, wanted] of cases) assert.deepEqual(JSON.parse(jsonText(given)), wanted);
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.constantFrom('', '\\', '\0', '\ud800'), (text, more) => {
      const given = `${text}${more}${text}`;
      assert.equal(JSON.parse(jsonText(given)), storableText(given));
    }),
  );
});

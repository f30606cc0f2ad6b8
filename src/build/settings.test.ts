import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { nearest, settingsSchema } from './settings.ts';

const DOCS = new URL('../../docs/', import.meta.url);

test('the manual has every setting with its meaning, and the schema is the one of the code', () => {
  const schema = settingsSchema();
  const manual = readFileSync(new URL('kiln-toml.md', DOCS), 'utf8').replace(/ +/g, ' ');
  for (const [key, of] of Object.entries(schema.properties as Record<string, { description?: string }>)) {
    if (key !== '$schema') assert.ok(manual.includes(`| \`${key}\` | ${of.description} |`), key);
  }
  const file = new URL('kiln.schema.json', DOCS);
  if (process.env.KILN_WRITE_FIXTURES) writeFileSync(file, `${JSON.stringify(schema, null, 2)}\n`);
  assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), schema);
});

test('the nearest word is found, and a far one is not', () => {
  const words = ['root', 'port', 'output_path'];
  assert.equal(nearest('prot', words), 'port');
  assert.equal(nearest('outputPath', words), 'output_path');
  assert.equal(nearest('completely_else', words), null);
  assert.equal(nearest('x'.repeat(10_000), words), null);
});

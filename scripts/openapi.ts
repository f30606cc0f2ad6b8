/**
 * Writes openapi.json, the client's types and docs/errors.md from the code; with `--check` only says whether they are up to date, and
 * whether a client of the last release (docs/openapi-0.1.json) would notice a break.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { breakingChanges } from '../src/api/compatibility.ts';
import { errorsPage } from '../src/api/errors-page.ts';
import { openApiDocument } from '../src/api/openapi.ts';
import { ENDPOINTS } from '../src/api/routes.ts';
import { clientTypesAreOf, writeClientTypes } from './client-types.ts';

const RELEASED = 'docs/openapi-0.1.json';

const root = new URL('../', import.meta.url);
const document = `${JSON.stringify(openApiDocument(ENDPOINTS.map(({ route }) => route)), null, 2)}\n`;
const pages: Record<string, string> = { 'openapi.json': document, 'docs/errors.md': errorsPage() };

const check = process.argv.includes('--check');
for (const [name, text] of Object.entries(pages)) {
  const file = new URL(name, root);
  const now = await readFile(file, 'utf8').catch(() => '');
  if (now === text) continue;
  if (!check) await writeFile(file, text);
  else {
    console.error(`${name} is out of date; run: node scripts/openapi.ts`);
    process.exitCode = 1;
  }
}
if (!(await clientTypesAreOf(document))) {
  if (!check) await writeClientTypes(document);
  else {
    console.error('src/client/schema.d.ts is out of date; run: node scripts/openapi.ts');
    process.exitCode = 1;
  }
}
if (check) {
  const released = JSON.parse(await readFile(new URL(RELEASED, root), 'utf8'));
  for (const broken of breakingChanges(released, JSON.parse(document))) {
    console.error(`breaks clients of ${RELEASED}: ${broken}`);
    process.exitCode = 1;
  }
}

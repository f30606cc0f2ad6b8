/** Writes openapi.json and docs/errors.md from the code; with `--check` only says whether they are up to date. */
import { readFile, writeFile } from 'node:fs/promises';
import { errorsPage } from '../src/api/errors-page.ts';
import { openApiDocument } from '../src/api/openapi.ts';
import { ENDPOINTS } from '../src/api/routes.ts';

const root = new URL('../', import.meta.url);
const pages: Record<string, string> = {
  'openapi.json': `${JSON.stringify(openApiDocument(ENDPOINTS.map(({ route }) => route)), null, 2)}\n`,
  'docs/errors.md': errorsPage(),
};

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

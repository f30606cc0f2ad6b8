/**
 * src/client/schema.d.ts: the types of the client, made of openapi.json by openapi-typescript. That tool needs the
 * compiler API of TypeScript 5, which TypeScript 7 does not have, so it is fetched with its own when it is needed. The
 * first line of the file holds the digest of the document it was made of: looking whether it is up to date needs no tool.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';

const TOOL = ['--package=openapi-typescript@7.13.0', '--package=typescript@5.9.3'];
const TIMEOUT_MS = 180_000;
const root = new URL('../', import.meta.url);
const file = new URL('src/client/schema.d.ts', root);

const firstLine = (document: string) =>
  `// Made of openapi.json (sha256 ${createHash('sha256').update(document).digest('hex')}) by scripts/openapi.ts; not to be edited.\n`;

export async function clientTypesAreOf(document: string): Promise<boolean> {
  return (await readFile(file, 'utf8').catch(() => '')).startsWith(firstLine(document));
}

/** Needs the npm registry, unless npm still has the tool. */
export async function writeClientTypes(document: string): Promise<void> {
  const made = execFileSync(
    'npm',
    ['exec', '--yes', ...TOOL, '--', 'openapi-typescript', 'openapi.json', '--root-types=false'],
    {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 64 * 1024 * 1024,
      timeout: TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const from = made.indexOf('/**\n * This file was auto-generated');
  if (from < 0) throw new Error(`openapi-typescript answered oddly: ${made.slice(0, 200)}`);
  await writeFile(file, firstLine(document) + made.slice(from));
}

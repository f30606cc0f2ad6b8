// Runs src/main.ts in this Node, which must be 24 or newer; kiln.mjs sees to that.
import { enableCompileCache } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

// Modules are kept as they are after their types were stripped and they were compiled: an engine is ready a second
// earlier. It comes before main.ts, because that is TypeScript too, and what strips types takes 90 ms to load alone.
const caches = process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
enableCompileCache(path.join(caches, 'kiln', 'compiled'));

const main = new URL('../src/main.ts', import.meta.url);
process.argv[1] = fileURLToPath(main);
await import(main.href);

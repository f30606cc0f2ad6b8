/** `npm run bench`, or `npm run bench -- publish start`: runs the benches named, or all. One at a time, on a quiet machine. */
import os from 'node:os';

const BENCHES: Record<string, () => Promise<{ run(): Promise<unknown> }>> = {
  snapshot: () => import('./snapshot.ts'),
  publish: () => import('./publish.ts'),
  start: () => import('./start.ts'),
  edge: () => import('./edge.ts'),
  images: () => import('./images.ts'),
  isolation: () => import('./isolation.ts'),
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in BENCHES));
if (unknown.length > 0) {
  console.error(`no bench ${unknown.join(', ')}; there are ${Object.keys(BENCHES).join(', ')}`);
  process.exit(2);
}
console.log(`${os.cpus().length} cores, load ${os.loadavg()[0]?.toFixed(1)}, Node ${process.version}`);
for (const name of wanted.length > 0 ? wanted : Object.keys(BENCHES)) await (await BENCHES[name]!()).run();

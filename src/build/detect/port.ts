/** Ports that an app's code fixes by itself instead of following `PORT`. */
import type { App } from './app.ts';

export interface FixedPort {
  port: number;
  file: string;
  line: number;
}

/**
 * The port written into the code, when nothing in it reads `PORT`. `what` has one group: the number.
 * Looks at the entrypoint first, then at the other files.
 */
export function fixedPort(app: App, files: string[], what: RegExp, reads_port: RegExp): FixedPort | null {
  if (app.search(files, reads_port)) return null;
  const hit = app.search(files, what);
  const port = Number(hit?.match.slice(1).find((group) => group !== undefined));
  return hit && port >= 1 && port <= 65_535 ? { port, file: hit.file, line: hit.line } : null;
}

/** What to tell about it. */
export function fixedPortNotes(app: App, fixed: FixedPort | null) {
  if (!fixed) return { port: null, evidence: [], warnings: [] };
  const { port, file, line } = fixed;
  return {
    port,
    evidence: [{ ...app.evidence(file, `port ${port}`, `the app is reached on port ${port}`), line }],
    warnings: [
      `${file}:${line} fixes port ${port}. Read PORT from the environment instead: where instances share the host's network (bubblewrap, process), no second version can start while one is live.`,
    ],
  };
}

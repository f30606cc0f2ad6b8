/** Ports that an app fixes by itself, in its code or in the command that starts it, instead of following `PORT`. */
import type { App } from './app.ts';

export interface FixedPort {
  port: number;
  file: string;
  line: number;
}

/** Of mail, databases, queues and remote shells: an app that names one talks to it. */
const OF_OTHERS = new Set([
  ...[22, 25, 465, 587, 993, 1433, 1521, 3306, 4222, 5432, 5672, 6379, 6432, 9042, 9092, 11211, 26257, 27017],
]);

/**
 * The port written into the code, when nothing in it reads `PORT`. `what` are patterns with the number in a group, the
 * surest first; each looks at the entrypoint first, then at the other files.
 */
export function fixedPort(app: App, files: string[], what: RegExp[], reads_port: RegExp): FixedPort | null {
  if (app.search(files, reads_port)) return null;
  for (const pattern of what) {
    const hit = app.search(files, pattern, (match) => isServed(portOf(match)));
    if (hit) return { port: portOf(hit.match), file: hit.file, line: hit.line };
  }
  return null;
}

const portOf = (match: RegExpExecArray): number =>
  Number(match.slice(1).find((group) => group !== undefined));

const isServed = (port: number): boolean => port >= 1 && port <= 65_535 && !OF_OTHERS.has(port);

const IN_COMMAND =
  /(?:^|\s)(?:PORT=|http\.server\s+|(?:--port|--bind|--listen|-p|-b|-l)(?:=|\s+)?(?:[\w.*:[\]/-]{0,100}:)?)["']?(\d{4,5})(?=["'\s]|$)/g;

/**
 * The port that a command says by itself (`next start -p 3000`, `PORT=3000 node .`): null where it says several, where it
 * follows PORT, and where it starts several programs, of which nobody knows which one serves.
 */
export function portInCommand(command: string): number | null {
  const text = command.slice(0, 2000);
  if (followsPort(text) || /[;|\n]|(?<!&)&(?!&)/.test(text)) return null;
  const ports = new Set([...text.matchAll(IN_COMMAND)].map((match) => Number(match[1])));
  const [port = 0] = ports;
  return ports.size === 1 && port >= 1024 && isServed(port) ? port : null;
}

export const followsPort = (command: string): boolean => /\$\{?PORT\b/.test(command);

/** Where instances share the host's ports, code in these languages is brought to another (isolation/moved-port). */
const MOVED = new Set(['json', 'js', 'mjs', 'cjs', 'ts', 'mts', 'cts', 'py', 'rb']);

/** What to tell about it. */
export function fixedPortNotes(app: App, fixed: FixedPort | null) {
  if (!fixed) return { port: null, evidence: [], warnings: [] };
  const { port, file, line } = fixed;
  return {
    port,
    evidence: [{ ...app.evidence(file, `port ${port}`, `the app is reached on port ${port}`), line }],
    warnings: MOVED.has(file.slice(file.lastIndexOf('.') + 1))
      ? []
      : [
          `${file}:${line} fixes port ${port}. Read PORT from the environment instead: where instances share the host's network (bubblewrap, process), no second version can start while one is live.`,
        ],
  };
}

/** Ports that an app fixes by itself, in its code or in the command that starts it, instead of following `PORT`. */
import type { App } from './app.ts';

export interface FixedPort {
  port: number;
  file: string;
  line: number;
}

/** How a language writes down a port, the surest patterns first, with the number in a group; and how it reads `PORT`. */
export interface PortPatterns {
  written: RegExp[];
  reads_port: RegExp;
}

/** Where a server listens; then what may as well be the port of something else. */
export const NODE_PORTS: PortPatterns = {
  written: [
    /(?:\.listen|\bserve)\(\s*(?:[^()\n]{0,80}\bport\s*:\s*)?['"]?(\d{2,5})\b/,
    /\bport\b\s*[:=]\s*(\d{2,5})\b/i,
  ],
  reads_port:
    /\benv(?:\.|\[['"]|\.get\(['"])PORT\b|\bPORT\b[^=\n]{0,40}\benv\b|\bPORT\b[^}\n]{0,80}\}\s*=\s*[\w.]{0,20}\benv\b/,
};
export const PYTHON_PORTS: PortPatterns = {
  written: [
    /(?:\brun|\bserve\w*|\bcreate_server|\bstart_server|\brun_app|Server)\([^\n]{0,80}?(?:\bport\s*=\s*|\(\s*['"][\w.]*['"]\s*,\s*)(\d{2,5})\b|\.listen\(\s*(\d{2,5})\b/,
    /\b(?:create|start)_server\([^\n]{1,80}?,\s*(?:['"][\w.:]*['"]|None)\s*,\s*(\d{2,5})\b/,
    /\bport\s*=\s*(\d{2,5})\b|(?<!connect\w{0,20}\(?)\(\s*['"][\w.]*['"]\s*,\s*(\d{2,5})\s*\)|\bPORT\b\s*=\s*(\d{2,5})\b/i,
  ],
  reads_port: /['"]PORT['"]/,
};

/** Of mail, databases, queues and remote shells: an app that names one talks to it. */
const OF_OTHERS = new Set([
  ...[22, 25, 465, 587, 993, 1433, 1521, 3306, 4222, 5432, 5672, 6379, 6432, 9042, 9092, 11211, 26257, 27017],
]);

/** The port written into the code, when nothing in it reads `PORT`. Each pattern looks at the files in their order. */
export function fixedPort(app: App, files: string[], ports: PortPatterns): FixedPort | null {
  if (app.search(files, ports.reads_port)) return null;
  for (const pattern of ports.written) {
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

const followsPort = (command: string): boolean => /\$\{?PORT\b/.test(command);

const PORTS_OF: Record<string, PortPatterns> = {
  ...Object.fromEntries(['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'].map((extension) => [extension, NODE_PORTS])),
  py: PYTHON_PORTS,
};
const extensionOf = (file: string): string => file.slice(file.lastIndexOf('.') + 1);

/**
 * For a command that was given: what it says itself, or the file that it runs; else `found`, the port that was found in the
 * app, which may be started another way.
 */
export function portOfCommand(app: App, command: string, found: number | null): number | null {
  if (followsPort(command)) return null;
  const said = portInCommand(command);
  if (said !== null) return said;
  const words = command.slice(0, 2000).split(/\s+/).slice(0, 50);
  const file = words
    .map((word) => word.replace(/^\.\//, ''))
    .find((word) => Object.hasOwn(PORTS_OF, extensionOf(word)) && app.exists(word));
  if (file === undefined) return found;
  const ports = PORTS_OF[extensionOf(file)]!;
  return app.search([file], ports.reads_port) ? null : (fixedPort(app, [file], ports)?.port ?? found);
}

/** Where instances share the host's ports, code in these languages is brought to another (isolation/moved-port). */
const MOVED = new Set([...Object.keys(PORTS_OF), 'json', 'rb']);

/** What to tell about it. */
export function fixedPortNotes(app: App, fixed: FixedPort | null) {
  if (!fixed) return { port: null, evidence: [], warnings: [] };
  const { port, file, line } = fixed;
  return {
    port,
    evidence: [{ ...app.evidence(file, `port ${port}`, `the app is reached on port ${port}`), line }],
    warnings: MOVED.has(extensionOf(file))
      ? []
      : [
          `${file}:${line} fixes port ${port}. Read PORT from the environment instead: where instances share the host's network (bubblewrap, process), no second version can start while one is live.`,
        ],
  };
}

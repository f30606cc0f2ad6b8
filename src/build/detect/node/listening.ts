/** Where a Node server listens: a port or an address its code fixes, and the variables that move it to all addresses. */
import type { App } from '../app.ts';
import { type FixedPort, fixedPort, NODE_PORTS } from '../port.ts';

const LOOPBACK =
  /\.listen\([^)]{0,80}['"](127\.0\.0\.1|localhost)['"]|\bhost(?:name)?\s*[:=]\s*['"](127\.0\.0\.1|localhost)['"]/;
/** `env.HOST ?? 'localhost'`: a variable whose default is an address is where the server listens. */
const ADDRESS_VARIABLE =
  /\benv(?:\.|\[['"])(HOST|HOSTNAME|ADDRESS|BIND(?:_\w{1,20})?|LISTEN_\w{1,20})\b['"\]]*\s*(?:\?\?|\|\|)\s*['"](?:localhost|127\.0\.0\.1|0\.0\.0\.0|::1?)['"]/;
/** Servers of packages that start them with a command line, and the variable they take their address from. */
const ADDRESS_OF_PACKAGE: [name: string, variable: string][] = [
  ['fastify-cli', 'FASTIFY_ADDRESS'],
  ['@adonisjs/core', 'HOST'],
];

/** The port that these files fix, when none of them reads PORT. */
export const fixedNodePort = (app: App, files: string[]): FixedPort | null =>
  fixedPort(app, files, NODE_PORTS);

/** Variables that make the server listen on every address. */
export function listenEverywhere(
  app: App,
  entry: string | null,
  dependencies: ReadonlyMap<string, string>,
): Record<string, string> {
  const named = ADDRESS_OF_PACKAGE.find(([name]) => dependencies.has(name))?.[1];
  const read = entry === null ? null : app.search([entry], ADDRESS_VARIABLE)?.match[1];
  return Object.fromEntries([named, read].filter((name) => name != null).map((name) => [name, '0.0.0.0']));
}

/** What to tell about a server that only this machine could reach. */
export function loopbackWarnings(app: App, entry: string | null): string[] {
  const hit = entry === null ? null : app.search([entry], LOOPBACK);
  if (!hit) return [];
  return [
    `${hit.file}:${hit.line} listens on ${hit.match[1] ?? hit.match[2]} only, where nothing reaches it in a container or a virtual machine; listen on 0.0.0.0.`,
  ];
}

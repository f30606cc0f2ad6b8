/**
 * The last step of a machine's way out: connections to a loopback port of its own network namespace are handed to the
 * proxy's socket, which is bound into it. It is the machine's own process: breaking it cuts nobody off but itself.
 */
export const RELAY_PORT = 3128;

export const RELAY_SCRIPT = `
const net = require('node:net');
const server = net.createServer({ allowHalfOpen: true }, (inner) => {
  const outer = net.connect({ path: '/kiln-net/proxy.sock', allowHalfOpen: true });
  for (const [from, to] of [[inner, outer], [outer, inner]]) {
    from.on('error', () => to.destroy());
    from.pipe(to);
  }
});
server.listen(${RELAY_PORT}, '127.0.0.1', () => process.stdout.end('ready\\n'));
`;

/** Starts the relay and waits until it listens: the pipe gets its word or, if it cannot run, its end. */
export function relayLines(): string[] {
  return [
    `command -v node > /dev/null || { echo "[kiln] this image has no node, so this machine has no network" >&2; }`,
    `mkfifo /tmp/.kiln-relay && { node /kiln/relay.cjs > /tmp/.kiln-relay 2> /dev/null < /dev/null & } && read -r kiln_relay < /tmp/.kiln-relay`,
    'rm -f /tmp/.kiln-relay',
  ];
}

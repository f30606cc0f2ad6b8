/** An engine as a process of its own, for tests that kill it. Prints one JSON line when it is ready. */
import { flushCompileCache } from 'node:module';
import { readConfig } from '../../src/config.ts';
import { startServer } from '../../src/server.ts';
import { testConfig } from './config.ts';

const flags = JSON.parse(process.argv[2] ?? '{}') as Record<string, string>;
const config = testConfig(readConfig({}, flags));
const host_env = process.env as Record<string, string>;
const server = await startServer(config, { host_env });
process.once('SIGTERM', () => void server.close().then(() => process.exit(0)));
process.stdout.write(
  `${JSON.stringify({ api_url: server.api_url, edge_url: server.edge_url, key: server.key })}\n`,
);
// What was compiled is kept for the next engine (see scripts/test.ts), also if this one is killed.
flushCompileCache();
// A test that dies takes its engine with it.
process.stdin.on('end', () => process.exit(1)).resume();

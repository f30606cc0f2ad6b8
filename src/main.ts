/** The entry: `node src/main.ts <command>`. Hands the environment, the streams and the signals to the command line. */
import { runCli } from './cli/run.ts';

const { env } = process;

const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    // The second one: whoever sends it does not want to wait.
    if (interrupt.signal.aborted) process.exit(130);
    interrupt.abort();
  });

for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // The reader has gone (`kiln logs shop | head`).
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });

// `npm start -- ./my-app` runs in Kiln's own folder, whatever folder it was typed in.
const by_npm_start = env.npm_lifecycle_event === 'start' && env.npm_package_name === 'kiln';

const code = await runCli({
  argv: process.argv.slice(2),
  env,
  cwd: (by_npm_start && env.INIT_CWD) || process.cwd(),
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  interrupted: interrupt.signal,
  startServer: async (config, hooks) => (await import('./server.ts')).startServer(config, hooks),
});
// Waits for what is still in the pipe, and for nothing else (idle connections, threads).
process.stdout.write('', () => process.exit(code));

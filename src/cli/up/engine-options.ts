/** The options of an engine, shared by `up` and `start`: those of config.ts, and a look at the ports before it starts. */
import net from 'node:net';
import type { Command } from 'commander';
import { type Config, type Flags, OPTIONS, type OptionName, readConfig } from '../../config.ts';
import { folderHolder } from '../../engine/folders.ts';
import type { Server } from '../../server.ts';
import type { Cli } from '../cli.ts';
import { badInput, CliError, EXIT } from '../exit.ts';

/** `data` is an option of every command. */
const NAMES = (Object.keys(OPTIONS) as OptionName[]).filter((name) => name !== 'data');

export type EngineOptions = Record<string, string | undefined>;

export function addEngineOptions(command: Command): Command {
  command.optionsGroup('The engine (or KILN_<NAME> in the environment):');
  for (const name of NAMES) command.option(`--${name} <value>`, OPTIONS[name].about);
  return command.optionsGroup('Options:');
}

/** The configuration from options, environment and defaults. Throws VALIDATION_ERROR naming the option. */
export function configOf(cli: Cli, options: EngineOptions): Config {
  const flags: Flags = cli.data_flag === undefined ? {} : { data: cli.data_flag };
  for (const name of NAMES) {
    const value = options[camelCase(name)];
    if (typeof value === 'string') flags[name] = value;
  }
  return readConfig(cli.env, flags);
}

/** Was the port asked for, so that another one would be wrong? */
export function isChosen(cli: Cli, options: EngineOptions, name: 'api-port' | 'edge-port'): boolean {
  return Boolean(options[camelCase(name)] ?? cli.env[`KILN_${name.replace('-', '_').toUpperCase()}`]);
}

/**
 * Starts the engine. Port 0 becomes a real one first, for the lock file names the API's port. A taken port rejects with
 * exit code 2, unless `any_port` says that another will do for it.
 */
export async function startEngine(
  cli: Cli,
  config: Config,
  any_port: { api: boolean; edge: boolean },
): Promise<Server> {
  const holder = folderHolder(config.data_dir);
  if (holder)
    throw new CliError(
      EXIT.input,
      'CONFLICT',
      `The data folder ${config.data_dir} is in use by the Kiln engine with process id ${holder.pid} on ${holder.host} (API ${holder.api}).`,
      { next_step: 'Use that one, stop it, or choose another folder with --data.' },
    );
  const api = { ...config.api, port: await freePort(cli, config.api, 'api', any_port.api, []) };
  const edge = { ...config.edge, port: await freePort(cli, config.edge, 'edge', any_port.edge, [api.port]) };
  return cli.startServer(
    { ...config, api, edge },
    {
      host_env: definedOnly(cli.env),
      say: (level, message, data) => {
        if (level === 'info') return;
        cli.out.emit({ event: level, message, ...(data === undefined ? {} : { data }) });
        cli.out.note(`${level}: ${message}${data === undefined ? '' : ` ${JSON.stringify(data)}`}`);
      },
    },
  );
}

export function describeEngine(cli: Cli, config: Config, server: Server): void {
  const { api_url, edge_url, isolation, warnings } = server;
  cli.out.emit({ event: 'ready', api_url, edge_url, isolation, warnings, data_dir: config.data_dir });
  cli.out.fields([
    ['API', api_url],
    ['Edge', edge_url],
    ['Isolation', isolation],
    ['Data', config.data_dir],
  ]);
  for (const warning of warnings) cli.out.warn(warning);
}

/** Until Ctrl-C, SIGTERM, or the engine's own end. */
export async function serve(cli: Cli, server: Server): Promise<void> {
  await Promise.race([aborted(cli.interrupted), server.closed]);
  cli.out.emit({ event: 'stopping' });
  cli.out.note('Stopping… (again to stop at once)');
  await server.close();
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  // An engine has open sockets, so this need not keep the process alive.
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

async function freePort(
  cli: Cli,
  at: { host: string; port: number },
  what: 'api' | 'edge',
  any_port: boolean,
  taken: number[],
): Promise<number> {
  if (at.port !== 0 && !taken.includes(at.port)) {
    const problem = await tryPort(at.host, at.port);
    if (typeof problem === 'number') return problem;
    if (problem !== 'EADDRINUSE')
      throw badInput(
        `The ${what} cannot listen on ${at.host}:${at.port} (${problem}).`,
        `Give another address or port with --${what}-host and --${what}-port.`,
      );
  }
  if (at.port !== 0 && !any_port)
    throw new CliError(
      EXIT.input,
      'PORT_TAKEN',
      `Port ${at.port} on ${at.host}, where the ${what} should listen, is taken by another program.`,
      { next_step: `Give another with --${what}-port; 0 takes any free one.` },
    );
  const port = await tryPort(at.host, 0);
  if (typeof port !== 'number') throw badInput(`The ${what} cannot listen on ${at.host} (${port}).`);
  if (at.port !== 0)
    cli.out.warn(`port ${at.port} is taken by another program; the ${what} uses ${port} this time.`);
  return port;
}

/** The port if it can be listened on, else why not. */
function tryPort(host: string, port: number): Promise<number | string> {
  const { promise, resolve } = Promise.withResolvers<number | string>();
  const probe = net.createServer();
  probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  probe.listen({ host, port, exclusive: true }, () => {
    const chosen = (probe.address() as net.AddressInfo).port;
    probe.close(() => resolve(chosen));
  });
  return promise;
}

function definedOnly(env: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
}

function camelCase(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** What a command gets to work with. */
import type { Command } from 'commander';
import type { Config, Env } from '../config.ts';
import type { Hooks, Server } from '../server.ts';
import type { Client } from './client.ts';
import type { ExitCode } from './exit.ts';
import type { Output } from './output.ts';

export type StartServer = (config: Config, hooks: Hooks) => Promise<Server>;

export interface Cli {
  env: Env;
  cwd: string;
  stdin: NodeJS.ReadableStream & { isTTY?: boolean };
  out: Output;
  /** Aborts with the first Ctrl-C or SIGTERM. */
  interrupted: AbortSignal;
  data_dir: string;
  /** `--data` as it was given, for the configuration of an engine. */
  data_flag: string | undefined;
  /** Finds the engine and its key; rejects with exit code 6 when none runs. */
  connect(): Promise<Client>;
  startServer: StartServer;
}

/** Runs with what the user typed; undefined means exit code 0. */
export type Handler<A extends unknown[]> = (cli: Cli, ...args: A) => Promise<ExitCode | undefined>;

/** Makes a handler the action of a command. */
export type Bind = <A extends unknown[]>(handler: Handler<A>) => (...args: A) => Promise<void>;

/** A command: its arguments, options, examples and action are added to `command`. */
export interface CommandModule {
  define(command: Command, bind: Bind): void;
}

/** The examples that every command's help ends with: what to type, and what it does. */
export function examples(command: Command, lines: [string, string][]): void {
  const width = Math.max(...lines.map(([typed]) => typed.length));
  const text = lines.map(([typed, about]) => `  ${typed.padEnd(width)}  # ${about}`).join('\n');
  command.addHelpText('after', `\nExamples:\n${text}`);
}

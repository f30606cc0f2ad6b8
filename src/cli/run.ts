/**
 * The command line: reads what was typed, runs one command and answers with its exit code. Imports nothing of the
 * engine, and only the command that was typed.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { dataDir, type Env } from '../config.ts';
import type { Bind, Cli, StartServer } from './cli.ts';
import { Client } from './client.ts';
import { COMMANDS } from './commands.ts';
import { findConnection } from './connection.ts';
import { CliError, EXIT, EXIT_HELP, type ExitCode } from './exit.ts';
import { errorObject, explainError } from './explain-error.ts';
import { Output, type Stream } from './output.ts';

export interface CliInput {
  /** Without the program and the script. */
  argv: string[];
  env: Env;
  cwd: string;
  stdin: NodeJS.ReadableStream & { isTTY?: boolean };
  stdout: Stream;
  stderr: Stream;
  /** Aborts with the first SIGINT or SIGTERM. */
  interrupted: AbortSignal;
  startServer: StartServer;
}

interface GlobalOptions {
  data?: string;
  api?: string;
  key?: string;
  json?: boolean;
}

/** Global options that take a value: what follows them is not the command. */
const TAKES_VALUE = ['--data', '--api', '--key'];

/** Never rejects: whatever goes wrong is explained to the user and becomes an exit code. */
export async function runCli(input: CliInput): Promise<ExitCode> {
  const ended: { code: ExitCode } = { code: EXIT.ok };
  const program = new Command('kiln');
  const bind: Bind =
    (handler) =>
    async (...args) => {
      ended.code = (await handler(makeCli(input, program.opts<GlobalOptions>()), ...args)) ?? EXIT.ok;
    };
  const help: string[] = [];
  try {
    describe(program, input, (text) => help.push(text));
    await addCommands(program, bind, commandOf(input.argv));
    if (input.argv.length === 0) program.outputHelp();
    else await program.parseAsync(input.argv, { from: 'user' });
    return ended.code;
  } catch (error) {
    return fail(input, asked(error, program, input.argv, help.join('')));
  }
}

/** Help and version are no errors, but commander throws them; a command that lacks its subcommand has no message. */
function asked(error: unknown, program: Command, argv: readonly string[], text: string): unknown {
  if (!(error instanceof CommanderError)) return error;
  if (error.exitCode === 0)
    return new Asked(error.code === 'commander.version' ? { version: text.trim() } : { help: text });
  if (error.code !== 'commander.help') return error;
  const command = program.commands.find((one) => one.name() === commandOf(argv)) ?? program;
  const names = command.commands.map((one) => one.name()).filter((name) => name !== 'help');
  const name = command === program ? 'kiln' : `kiln ${command.name()}`;
  return new CommanderError(2, error.code, `Which command? ${name} has ${names.join(', ')}.`);
}

/** What was asked for instead of a command, as `--json` prints it. */
class Asked {
  readonly object: Record<string, unknown>;
  constructor(object: Record<string, unknown>) {
    this.object = object;
  }
}

function describe(program: Command, input: CliInput, keep: (text: string) => void): void {
  program
    .description('Self-hosted publish engine: a folder goes in, a live URL comes out.')
    .version(packageVersion(), '-V, --version', 'version of Kiln')
    .option('--data <folder>', 'data folder of the engine (default ~/.kiln, or KILN_DATA)')
    .option('--api <url>', 'engine to talk to (default: the one on the data folder, or KILN_API)')
    .option('--key <key>', 'API key (default: that of the data folder, or KILN_KEY)')
    .option('--json', 'one JSON object, or one JSON line per event')
    .helpOption('-h, --help', 'show help')
    .configureHelp({ showGlobalOptions: true, helpWidth: Math.min(input.stdout.columns ?? 100, 110) })
    .configureOutput({
      writeOut: (text) => (wantsJson(input) ? keep(text) : input.stdout.write(text)),
      // With --json the error is an object on stdout; see `fail`.
      writeErr: (text) => (wantsJson(input) ? undefined : input.stderr.write(text)),
    })
    .exitOverride()
    .addHelpText(
      'after',
      `\nExamples:\n  kiln start                    # engine and example app\n  kiln publish ./my-app         # to the engine that runs\n  kiln rollback my-app          # back to the version before\n\n${EXIT_HELP}`,
    );
}

/** All commands by name and summary; options and action only of `typed`, or of all when nothing known was typed. */
async function addCommands(program: Command, bind: Bind, typed: string | null): Promise<void> {
  for (const { name, group, summary, load } of COMMANDS) {
    program.commandsGroup(group);
    const command = program
      .command(name)
      .summary(summary)
      .description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`);
    if (typed === name) (await load()).define(command, bind);
  }
}

function commandOf(argv: readonly string[]): string | null {
  const operands: string[] = [];
  for (let at = 0; at < argv.length; at++) {
    if (TAKES_VALUE.includes(argv[at]!)) at++;
    else if (!argv[at]!.startsWith('-')) operands.push(argv[at]!);
  }
  return (operands[0] === 'help' ? operands[1] : operands[0]) ?? null;
}

function makeCli(input: CliInput, global: GlobalOptions): Cli {
  const { env, cwd, stdin, stdout, stderr, interrupted, startServer } = input;
  const data_dir = dataDir(env, global.data === undefined ? {} : { data: global.data });
  return {
    env,
    cwd,
    stdin,
    interrupted,
    startServer,
    data_dir,
    data_flag: global.data,
    out: makeOutput(input, stdout, stderr),
    connect: async () => {
      const api = global.api ?? (env.KILN_API || null);
      const key = global.key ?? (env.KILN_KEY || null);
      return new Client(await findConnection({ api, key, data_dir, interrupted }), interrupted);
    },
  };
}

function makeOutput(input: CliInput, stdout: Stream, stderr: Stream): Output {
  const no_colour = (input.env.NO_COLOR ?? '') !== '' || input.env.TERM === 'dumb';
  return new Output({ json: wantsJson(input), stdout, stderr, no_colour });
}

function wantsJson(input: CliInput): boolean {
  const end = input.argv.indexOf('--');
  return (end < 0 ? input.argv : input.argv.slice(0, end)).includes('--json');
}

function fail(input: CliInput, error: unknown): ExitCode {
  if (error instanceof Asked) {
    makeOutput(input, input.stdout, input.stderr).emit(error.object);
    return EXIT.ok;
  }
  const known =
    error instanceof CommanderError
      ? new CliError(EXIT.input, 'BAD_INPUT', error.message.replace(/^error: /, ''))
      : explainError(error, input.interrupted);
  const out = makeOutput(input, input.stdout, input.stderr);
  out.emit(errorObject(known));
  // Commander has written its own message already.
  if (error instanceof CommanderError) return known.exit_code;
  if (known.exit_code === EXIT.interrupted) return known.exit_code;
  out.note(`${out.paint('red', 'error:', out.stderr)} ${known.message}`);
  for (const [field, messages] of Object.entries(known.fields ?? {})) {
    const line = `${field}: ${messages.join('; ')}`;
    // The message is the first of them when it is the only one.
    if (!known.message.includes(line)) out.note(`  ${line}`);
  }
  if (known.next_step) out.note(known.next_step);
  const details = [known.code, known.request_id].filter(Boolean).join(', ');
  out.note(out.paint('dim', `(${details})`, out.stderr));
  return known.exit_code;
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

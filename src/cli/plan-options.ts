/** The options that override the plan, shared by `plan`, `publish` and `start`. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { ENV_NAME } from '../domain/env-var.ts';
import { OUTPUT_FOLDERS } from '../domain/left-out.ts';
import type { PlanOverrides } from '../domain/plan.ts';

export interface PlanOptions {
  kind?: 'auto' | 'static' | 'dynamic';
  root?: string;
  installCommand?: string;
  buildCommand?: string;
  runCommand?: string;
  outputPath?: string;
  port?: number;
  healthCheckPath?: string;
  entrypoint?: string;
  spa?: boolean;
}

const LEFT_OUT = `
Left out of a source: node_modules, caches, .git, .env, and folders called ${OUTPUT_FOLDERS.join(', ')} at any depth.
A line such as !dist in .kilnignore takes one back in.`;

export function addPlanOptions(command: Command): Command {
  return command
    .addHelpText('after', LEFT_OUT)
    .optionsGroup('What is built and run (instead of what is detected):')
    .option('--build-command <command>', 'builds the app')
    .option('--install-command <command>', 'installs what the build needs')
    .option('--run-command <command>', 'starts the server; it must listen on $PORT')
    .option('--output-path <folder>', 'folder that is packed after the build')
    .option('--port <number>', 'port the server listens on', wholeNumber(1, 65_535))
    .option('--health-check-path <path>', 'path that answers 2xx when the server is well (default /)')
    .option('--root <folder>', 'folder of the app inside PATH')
    .addOption(new Option('--kind <kind>', 'files or a server').choices(['auto', 'static', 'dynamic']))
    .option('--entrypoint <file>', 'file the app starts from')
    .option('--spa', 'static only: unknown pages are answered with index.html')
    .option('--no-spa', 'static only: unknown pages are answered with 404')
    .optionsGroup('Options:');
}

export function overridesOf(options: PlanOptions): PlanOverrides {
  const overrides: PlanOverrides = {
    kind: options.kind,
    root: options.root,
    install_command: options.installCommand,
    build_command: options.buildCommand,
    run_command: options.runCommand,
    output_path: options.outputPath,
    port: options.port,
    health_check_path: options.healthCheckPath,
    entrypoint: options.entrypoint,
    spa: options.spa,
  };
  return Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
}

export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}

export function seconds(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+(\.\d+)?$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a number of seconds from ${min} to ${max}.`);
  };
}

export function addEnvOption(command: Command): Command {
  const about = 'variable of this version only, NAME=- reads its value from standard input; can be repeated';
  return command.option('--env <NAME=VALUE>', about, (text: string, before: [string, string][] = []) => [
    ...before,
    splitPair(text),
  ]);
}

export function splitPair(text: string): [string, string] {
  const at = text.indexOf('=');
  const name = text.slice(0, Math.max(at, 0));
  if (ENV_NAME.test(name)) return [name, text.slice(at + 1)];
  throw new InvalidArgumentError('It must be NAME=VALUE; a name has letters, digits and _.');
}

/** Every command. Only the one that was typed is loaded, so that each starts fast. */
import type { CommandModule } from './cli.ts';

export interface CommandEntry {
  name: string;
  group: string;
  summary: string;
  load: () => Promise<CommandModule>;
}

const ENGINE = 'The engine:';
const PUBLISH = 'Publish:';
const LOOK = 'Look:';
const CHANGE = 'Change what is live:';
const HOUSE = 'Look after it:';

export const COMMANDS: readonly CommandEntry[] = [
  {
    name: 'start',
    group: ENGINE,
    summary: 'start the engine, publish a folder (or the example app) and keep serving',
    load: () => import('./start/start.ts'),
  },
  { name: 'up', group: ENGINE, summary: 'start the engine alone', load: () => import('./up/up.ts') },
  {
    name: 'publish',
    group: PUBLISH,
    summary: 'snapshot, build, release, prove healthy, switch',
    load: () => import('./publish/publish.ts'),
  },
  {
    name: 'plan',
    group: PUBLISH,
    summary: 'how a folder would be built and run, and why; needs no engine',
    load: () => import('./plan/plan.ts'),
  },
  {
    name: 'retry',
    group: PUBLISH,
    summary: 'build again from the stored snapshot of a version',
    load: () => import('./retry/retry.ts'),
  },
  {
    name: 'cancel',
    group: PUBLISH,
    summary: 'stop a queued or running publish',
    load: () => import('./cancel/cancel.ts'),
  },
  {
    name: 'ls',
    group: LOOK,
    summary: 'deployments, and whether they are live',
    load: () => import('./ls/ls.ts'),
  },
  {
    name: 'versions',
    group: LOOK,
    summary: 'the history of a deployment',
    load: () => import('./versions/versions.ts'),
  },
  {
    name: 'logs',
    group: LOOK,
    summary: 'what a build or an app wrote',
    load: () => import('./logs/logs.ts'),
  },
  {
    name: 'inspect',
    group: LOOK,
    summary: 'everything about a version or a deployment',
    load: () => import('./inspect/inspect.ts'),
  },
  {
    name: 'verify',
    group: LOOK,
    summary: 'build a version again and compare it with its release',
    load: () => import('./verify/verify.ts'),
  },
  {
    name: 'image',
    group: LOOK,
    summary: 'the OCI image of a version: push, export',
    load: () => import('./image/image.ts'),
  },
  {
    name: 'open',
    group: LOOK,
    summary: 'the URL of a deployment, in a browser',
    load: () => import('./open/open.ts'),
  },
  {
    name: 'rollback',
    group: CHANGE,
    summary: 'back to an earlier version',
    load: () => import('./rollback/rollback.ts'),
  },
  {
    name: 'promote',
    group: CHANGE,
    summary: 'make a version active without a build',
    load: () => import('./promote/promote.ts'),
  },
  { name: 'scale', group: CHANGE, summary: 'number of instances', load: () => import('./scale/scale.ts') },
  {
    name: 'env',
    group: CHANGE,
    summary: 'environment variables: ls, set, unset',
    load: () => import('./env/env.ts'),
  },
  {
    name: 'rm',
    group: CHANGE,
    summary: 'take a deployment off the air and remove it',
    load: () => import('./rm/rm.ts'),
  },
  {
    name: 'sandbox',
    group: HOUSE,
    summary: 'workspaces: ls, exec, rm',
    load: () => import('./sandbox/sandbox.ts'),
  },
  {
    name: 'keys',
    group: HOUSE,
    summary: 'API keys: ls, create, revoke',
    load: () => import('./keys/keys.ts'),
  },
  {
    name: 'mcp',
    group: HOUSE,
    summary: 'tools for an agent, over standard input and output (Model Context Protocol)',
    load: () => import('./mcp/mcp.ts'),
  },
  {
    name: 'builder-image',
    group: HOUSE,
    summary: 'the image that isolated builds start from: build, ls',
    load: () => import('./builder-image/builder-image.ts'),
  },
  {
    name: 'gc',
    group: HOUSE,
    summary: 'remove what retention allows, or say what would go and why the rest stays',
    load: () => import('./gc/gc.ts'),
  },
  {
    name: 'doctor',
    group: HOUSE,
    summary: 'what works on this machine, and what uses the disk',
    load: () => import('./doctor/doctor.ts'),
  },
];

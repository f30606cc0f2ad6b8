/** What an agent can do, in the words an agent reads: each description says what to do next. */
import { randomUUID } from 'node:crypto';
import type { DeploymentView } from '../api/contract/deployment.ts';
import type { ErrorBody } from '../api/contract/error.ts';
import type { PublishedView, VersionView } from '../api/contract/version.ts';

export interface ToolPort {
  /** A call to the API below `/api/v1`, with the caller's key; resolves whatever the status. */
  ask(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; body: unknown }>;
  /** Uploads a folder of the machine the agent works on. Absent where there is none (HTTP). */
  bringFolder?(folder: string, name: string | null): Promise<{ deployment_id: string; sandbox_id: string }>;
}

interface Schema {
  type: 'object';
  properties: Record<string, { type: string; description: string }>;
  required: string[];
}

export interface Tool {
  name: string;
  title: string;
  description: string;
  input: Schema;
  needs_folders?: boolean;
  run(input: Record<string, unknown>, port: ToolPort): Promise<unknown>;
}

/** An answer of the API that is an error, told to the agent with its code. */
class ToolError extends Error {}

export async function callTool(tool: Tool, given: unknown, port: ToolPort) {
  const text = (value: unknown, is_error: boolean) => ({
    content: [{ type: 'text', text: typeof value === 'string' ? value : JSON.stringify(value, null, 2) }],
    isError: is_error,
  });
  try {
    const input = (typeof given === 'object' && given !== null ? given : {}) as Record<string, unknown>;
    checkInput(tool, input);
    return text(await tool.run(input, port), false);
  } catch (error) {
    return text(error instanceof Error ? error.message : String(error), true);
  }
}

function checkInput(tool: Tool, input: Record<string, unknown>): void {
  for (const name of tool.input.required)
    if (input[name] === undefined) throw new ToolError(`\`${name}\` is missing.`);
  for (const [name, value] of Object.entries(input)) {
    const wanted = tool.input.properties[name]?.type;
    if (wanted !== undefined && typeof value !== wanted)
      throw new ToolError(`\`${name}\` must be a ${wanted}.`);
  }
}

async function ask<T>(port: ToolPort, method: string, path: string, body?: unknown): Promise<T> {
  // One key per intended change, so that nothing happens twice however the call travels.
  const headers = method === 'GET' ? {} : { 'idempotency-key': randomUUID() };
  const answer = await port.ask(method, path, body, headers as Record<string, string>);
  if (answer.status < 400) return answer.body as T;
  const error = answer.body as Partial<ErrorBody> | null;
  const next = error?.error?.details?.next_step;
  throw new ToolError(
    `${error?.code ?? `HTTP ${answer.status}`}: ${error?.message ?? 'the engine refused'}${
      typeof next === 'string' ? `\nNext step: ${next}` : ''
    }`,
  );
}

const segment = encodeURIComponent;

async function findDeployment(port: ToolPort, named: unknown): Promise<DeploymentView> {
  const name = segment(String(named));
  const path = String(named).startsWith('dep_') ? `/deployments/${name}` : `/deployments/by-name/${name}`;
  return (await ask<{ data: DeploymentView }>(port, 'GET', path)).data;
}

async function findVersion(port: ToolPort, deployment: DeploymentView, named: unknown): Promise<VersionView> {
  const at = `/deployments/${deployment.id}/versions`;
  if (typeof named === 'string' && named.startsWith('ver_'))
    return (await ask<{ data: VersionView }>(port, 'GET', `${at}/${segment(named)}`)).data;
  const { data } = await ask<{ data: VersionView[] }>(port, 'GET', `${at}?limit=200`);
  const found = named === undefined ? data[0] : data.find((v) => String(v.version_number) === String(named));
  if (!found)
    throw new ToolError(
      named === undefined
        ? `Nothing was published to ${deployment.slug} yet; call publish.`
        : `${deployment.slug} has no version ${String(named)}; status shows the newest.`,
    );
  return found;
}

const brief = (d: DeploymentView) => ({
  name: d.slug,
  id: d.id,
  state: d.state,
  url: d.public_url,
  active_version_id: d.active_version_id,
});

const story = (v: VersionView) => ({
  id: v.id,
  number: v.version_number,
  state: v.state,
  stage: v.stage,
  superseded: v.superseded,
  error: v.error_message,
});

function nextStep(d: DeploymentView, v: VersionView): string {
  if (v.state === 'failed') return `Call explain_failure for ${d.slug}; production is unchanged.`;
  if (v.state === 'created' || v.state === 'building') return 'Call status again in a few seconds.';
  if (d.active_version_id === v.id) return `It is live at ${d.public_url}.`;
  return `Version ${v.version_number} is proved but not live: promote it, or ask a person to.`;
}

async function published(port: ToolPort, to: string, input: Record<string, unknown>, body: object) {
  const wait = Math.min(typeof input.wait_sec === 'number' ? Math.max(0, input.wait_sec) : 20, 120);
  const promote = input.promote !== false;
  const { data } = await ask<PublishedView>(port, 'POST', `${to}?wait=${wait}`, { ...body, promote });
  return {
    deployment: brief(data.deployment),
    version: story(data.version),
    secrets_left_out: data.secrets_left_out,
    next_step: nextStep(data.deployment, data.version),
  };
}

const text = (description: string) => ({ type: 'string', description });
const DEPLOYMENT = text('Name, slug or id (dep_…) of the deployment.');
const VERSION = text('Number or id (ver_…) of a version; the newest when left out.');
const PUBLISH = {
  promote: {
    type: 'boolean',
    description: 'False: prove it, but leave production as it is. Default true.',
  },
  wait_sec: { type: 'number', description: 'How long to wait for the outcome; default 20, at most 120.' },
};

export const TOOLS: Tool[] = [
  {
    name: 'publish_folder',
    title: 'Publish a folder',
    description:
      'Freezes a folder of this machine, builds it, proves it healthy and makes it live. If the answer is not final call `status`; if it failed call `explain_failure`.',
    input: {
      type: 'object',
      properties: { folder: text('Path of the app.'), name: text('Deployment; made when new.'), ...PUBLISH },
      required: ['folder'],
    },
    needs_folders: true,
    async run(input, port) {
      const name = input.name === undefined ? null : String(input.name);
      const { deployment_id, sandbox_id } = await port.bringFolder!(String(input.folder), name);
      return published(port, `/deployments/${deployment_id}/publish`, input, {
        source_sandbox_id: sandbox_id,
      });
    },
  },
  {
    name: 'publish',
    title: 'Publish a sandbox',
    description:
      'The same from a sandbox that is filled already. Next: `status` until the version is ready or failed, then `explain_failure` if it failed.',
    input: {
      type: 'object',
      properties: { sandbox_id: text('sbx_…'), name: text('Deployment; made when new.'), ...PUBLISH },
      required: ['sandbox_id'],
    },
    run: (input, port) =>
      published(port, `/sandboxes/${segment(String(input.sandbox_id))}/deploy`, input, {
        ...(input.name === undefined ? {} : { name: input.name }),
      }),
  },
  {
    name: 'list',
    title: 'List deployments',
    description: 'Deployments with state and URL, newest first (at most 50). Next: `status` of one of them.',
    input: { type: 'object', properties: {}, required: [] },
    async run(_input, port) {
      const { data } = await ask<{ data: DeploymentView[] }>(port, 'GET', '/deployments?limit=50');
      return data.map(brief);
    },
  },
  {
    name: 'status',
    title: 'How a deployment is',
    description:
      'State and URL of a deployment and the progress of a version. Call it again while the version is created or building; its next_step says what comes then.',
    input: {
      type: 'object',
      properties: { deployment: DEPLOYMENT, version: VERSION },
      required: ['deployment'],
    },
    async run(input, port) {
      const deployment = await findDeployment(port, input.deployment);
      const version = await findVersion(port, deployment, input.version);
      const next_step = nextStep(deployment, version);
      return { deployment: brief(deployment), version: story(version), next_step };
    },
  },
  {
    name: 'logs',
    title: 'Read logs',
    description:
      'The newest lines of the build log of a version, or (without `version`) of the newest build and the running app. Next: fix the source and publish again, or `rollback`.',
    input: {
      type: 'object',
      properties: {
        deployment: DEPLOYMENT,
        version: VERSION,
        lines: { type: 'number', description: 'At most so many; default 100.' },
      },
      required: ['deployment'],
    },
    async run(input, port) {
      const deployment = await findDeployment(port, input.deployment);
      const lines = Math.max(1, Math.min(Math.round(Number(input.lines ?? 100)), 1000));
      const of =
        input.version === undefined
          ? ''
          : `/builds/${(await findVersion(port, deployment, input.version)).build_id}`;
      const path = `/deployments/${deployment.id}${of}/logs?lines=${lines}`;
      const { data } = await ask<{ data: { lines: { line: string }[] } }>(port, 'GET', path);
      return data.lines.map(({ line }) => line).join('\n') || 'Nothing was written yet.';
    },
  },
  {
    name: 'explain_failure',
    title: 'Why a version failed',
    description:
      'Stage, cause and last log lines of a failed version, and a next_step to follow: usually a change of the source, then publish again. Production is unchanged by a failure.',
    input: {
      type: 'object',
      properties: { deployment: DEPLOYMENT, version: VERSION },
      required: ['deployment'],
    },
    async run(input, port) {
      const version = await findVersion(port, await findDeployment(port, input.deployment), input.version);
      if (!version.failure)
        return `Version ${version.version_number} is ${version.state}; it has not failed.`;
      return { version: story(version), ...version.failure };
    },
  },
  {
    name: 'rollback',
    title: 'Go back',
    description:
      'Makes an earlier version live again, without a build: the one named, else the one that was live before. Where an approval is needed the answer says whom to ask. Next: `status`.',
    input: {
      type: 'object',
      properties: { deployment: DEPLOYMENT, version: VERSION },
      required: ['deployment'],
    },
    async run(input, port) {
      const deployment = await findDeployment(port, input.deployment);
      const body =
        input.version === undefined
          ? {}
          : { version_id: (await findVersion(port, deployment, input.version)).id };
      const at = `/deployments/${deployment.id}/rollback`;
      const { data } = await ask<{ data: DeploymentView & { pending: boolean } }>(port, 'POST', at, body);
      return {
        deployment: brief(data),
        next_step: data.pending ? 'Its instances are being started and proved; call status.' : 'It is live.',
      };
    },
  },
];

/** A folder to a live URL through the API: bring its sandbox up to date, publish it, follow the operation to its end. */
import type { PlanOverrides } from '../../domain/plan.ts';
import type { Cli } from '../cli.ts';
import type { Client } from '../client.ts';
import { CliError, EXIT, type ExitCode } from '../exit.ts';
import { followPublished } from '../follow.ts';
import { Progress } from '../progress.ts';
import { bringFolder } from './bring-folder.ts';

export interface PublishRequest {
  /** Null: the deployment of the folder, or one called like it. */
  name: string | null;
  overrides: PlanOverrides;
  env: Record<string, string>;
  grace_ms: number | null;
  startup_timeout_ms: number | null;
  replicas: number | null;
  promote: boolean;
  reuse: boolean;
  include_git: boolean;
}

/** The snapshot is taken inside the call, and a source may have 2 GiB. */
const PUBLISH_TIMEOUT_MS = 15 * 60_000;

/** Resolves with the exit code that tells the outcome; rejects when the publish was not even accepted. */
export async function publishFolder(
  cli: Cli,
  client: Client,
  folder: string,
  request: PublishRequest,
): Promise<ExitCode> {
  const progress = new Progress(cli.out);
  let if_interrupted: string | null = 'Nothing was published.';
  try {
    const of = { cli, client, folder, request, progress, name: request.name };
    const { sandbox, deployment, ...local } = await bringFolder(of);
    if (request.replicas !== null && request.replicas !== deployment.desired_replicas)
      await client.post('/deployments/{id}/scale', {
        params: { id: deployment.id },
        body: { replicas: request.replicas },
      });
    progress.begin('snapshot');
    if_interrupted = `It may have been accepted already: \`kiln versions ${deployment.slug}\` shows it.`;
    const { data } = await client.post('/deployments/{id}/publish', {
      params: { id: deployment.id },
      body: bodyOf(request, sandbox.id),
      timeout_ms: PUBLISH_TIMEOUT_MS,
    });
    const secrets_left_out = [...new Set([...local.secrets_left_out, ...data.secrets_left_out])].sort();
    if_interrupted = null; // who follows says it better
    return await followPublished(cli, client, progress, { ...data, secrets_left_out });
  } catch (error) {
    progress.stop();
    if (if_interrupted !== null && error instanceof CliError && error.exit_code === EXIT.interrupted)
      cli.out.note(`Interrupted. ${if_interrupted}`);
    throw error;
  } finally {
    progress.stop();
  }
}

function bodyOf(request: PublishRequest, source_sandbox_id: string) {
  const { overrides, grace_ms, startup_timeout_ms, promote, reuse, include_git, env } = request;
  return {
    source_sandbox_id,
    ...overrides,
    ...(grace_ms === null ? {} : { grace_ms }),
    ...(startup_timeout_ms === null ? {} : { startup_timeout_ms }),
    promote,
    reuse,
    include_git,
    env,
  };
}

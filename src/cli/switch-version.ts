/** Promote and rollback: the call, what else changes with it, and following it when instances are proved first. */
import type { DeploymentView } from '../api/contract/deployment.ts';
import type { VersionView } from '../api/contract/version.ts';
import type { Cli } from './cli.ts';
import type { Client } from './client.ts';
import { EXIT, type ExitCode } from './exit.ts';
import { follow } from './follow.ts';
import { plainText } from './output.ts';
import { Progress } from './progress.ts';
import { reportOutcome } from './report.ts';

interface Change {
  what: string;
  name: string | null;
  from: string | null;
  to: string | null;
}

export type Switch = { promote: VersionView } | { rollback_to: string | null };

function ask(client: Client, id: string, what: Switch) {
  if ('promote' in what) {
    const params = { id, version_id: what.promote.id };
    return client.post('/deployments/{id}/versions/{version_id}/promote', { params, body: {} });
  }
  const body = what.rollback_to === null ? {} : { version_id: what.rollback_to };
  return client.post('/deployments/{id}/rollback', { params: { id }, body });
}

export async function switchVersion(
  cli: Cli,
  client: Client,
  deployment: DeploymentView,
  what: Switch,
): Promise<ExitCode> {
  const switched = (await ask(client, deployment.id, what)).data;
  const changes = switched.changes ?? [];
  const params = { id: deployment.id, version_id: switched.version_id };
  const version = (await client.get('/deployments/{id}/versions/{version_id}', { params })).data;
  if (!switched.pending) {
    cli.out.result({ ok: true, exit_code: EXIT.ok, deployment: switched, version, changes }, () => {
      cli.out.line(
        `${switched.slug} is on version ${version.version_number} (${version.id}): ${switched.public_url}`,
      );
      showChanges(cli, changes);
    });
    return EXIT.ok;
  }
  const { operation_id } = switched;
  cli.out.emit({ event: 'accepted', operation_id, version_id: version.id, changes });
  cli.out.note(
    `Version ${version.version_number} is started and proved first; production is unchanged meanwhile.`,
  );
  showChanges(cli, changes);
  const progress = new Progress(cli.out);
  try {
    const followed = await follow(cli, client, progress, { operation_id, version, show_log: false });
    progress.stop();
    return await reportOutcome(cli, client, { ...followed, secrets_left_out: [] });
  } finally {
    progress.stop();
  }
}

function showChanges(cli: Cli, changes: Change[]): void {
  if (changes.length === 0) return;
  cli.out.note('Besides the code this changes:');
  for (const { what, name, from, to } of changes) {
    const label = name === null ? what : `${what} ${name}`;
    cli.out.note(plainText(`  ${label}: ${from ?? 'not set'} → ${to ?? 'not set'}`));
  }
}

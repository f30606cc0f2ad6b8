import type { Command } from 'commander';
import { explainPlan } from '../../build/explain.ts';
import type { Plan } from '../../domain/plan.ts';
import { type Bind, type Cli, examples } from '../cli.ts';
import type { Client } from '../client.ts';
import { EXIT } from '../exit.ts';
import { findDeployment, findVersionAnywhere } from '../find.ts';
import { showFailure, showVersion } from '../report.ts';

export function define(command: Command, bind: Bind): void {
  command.argument('<what>', 'version (ver_…) or deployment');
  examples(command, [
    ['kiln inspect ver_01k…', 'its plan, stages, artifact, and why it failed'],
    ['kiln inspect shop', 'settings, live version and instances'],
    ['kiln inspect shop --json', 'as data'],
  ]);
  command.action(
    bind(async (cli, what: string) => {
      const client = await cli.connect();
      if (what.startsWith('ver_')) await inspectVersion(cli, client, what);
      else await inspectDeployment(cli, client, what);
      return EXIT.ok;
    }),
  );
}

async function inspectVersion(cli: Cli, client: Client, id: string): Promise<void> {
  const version = await findVersionAnywhere(client, id);
  const deployment = (await client.get('/deployments/{id}', { params: { id: version.deployment_id } })).data;
  cli.out.result(version, () => {
    cli.out.fields([
      ['deployment', deployment.slug],
      ['live', deployment.active_version_id === version.id ? `yes, ${deployment.public_url}` : 'no'],
    ]);
    showVersion(cli.out, version);
    if (version.plan) {
      cli.out.line('');
      cli.out.line(explainPlan(version.plan as Plan));
    }
    if (version.failure) {
      cli.out.line('');
      showFailure(cli.out, version.failure, { deployment, version });
    }
  });
}

async function inspectDeployment(cli: Cli, client: Client, name: string): Promise<void> {
  const deployment = await findDeployment(client, name);
  const params = { id: deployment.id };
  const [active, instances] = await Promise.all([
    deployment.active_version_id === null
      ? null
      : client.find('/deployments/{id}/versions/{version_id}', {
          params: { ...params, version_id: deployment.active_version_id },
        }),
    client.get('/deployments/{id}/runtime-instances', { params }),
  ]);
  const object = { deployment, active_version: active?.data ?? null, instances: instances.data };
  cli.out.result(object, () => {
    cli.out.fields([
      ['name', deployment.name],
      ['id', deployment.id],
      ['state', deployment.state],
      ['URL', deployment.public_url],
      ['replicas', deployment.desired_replicas],
      ...Object.entries(deployment.settings),
    ]);
    if (active) {
      cli.out.line('');
      cli.out.line('Live version');
      showVersion(cli.out, active.data);
    }
    if (instances.data.length > 0) cli.out.line('');
    cli.out.table(
      ['INSTANCE', 'ROLE', 'STATE', 'PORT', 'RESTARTS', 'STARTED'],
      instances.data.map((one) => [
        one.id,
        one.role,
        one.state,
        String(one.port ?? ''),
        String(one.restart_count),
        one.started_at ?? '',
      ]),
    );
    if (deployment.failure)
      cli.out.note(
        `The newest publish failed: ${deployment.failure.message} ${deployment.failure.next_step}`,
      );
  });
}

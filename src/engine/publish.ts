/**
 * Accepting a publish or a retry: the snapshot is stored first, then version, build and operation are written in one
 * transaction together with the wake-up. A crash before it leaves no row (I7), after it nothing can be lost (I8).
 */
import path from 'node:path';
import type { Deployment, DeploymentSettings } from '../domain/deployment.ts';
import { isPublicName, looksSecret } from '../domain/env-var.ts';
import { KilnError } from '../domain/errors.ts';
import type { PlanOverrides } from '../domain/plan.ts';
import type { Version } from '../domain/version.ts';
import { freeze } from '../pipeline/1-snapshot.ts';
import { sealEnv, type VersionEnv } from '../pipeline/version-env.ts';
import { insertBuild } from '../store/build.ts';
import type { Trx } from '../store/db.ts';
import { lockLivingDeployment, setDeploymentState, takeSeq, takeVersionNumber } from '../store/deployment.ts';
import { readEnvVars } from '../store/env-var.ts';
import { type KeyScope, recordSubject } from '../store/idempotency.ts';
import { holdObjects } from '../store/object.ts';
import { insertOperation } from '../store/operation.ts';
import { transact } from '../store/transact.ts';
import { insertVersion, type NewVersion, versionSecrets } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import type { Accepted, PublishInput } from './engine.ts';
import { type Queue, refuseTooMany } from './queue.ts';

export async function acceptPublish(
  ctx: EngineContext,
  queue: Queue,
  input: PublishInput & { workspace_dir: string },
): Promise<Accepted> {
  const overrides = withSettings(input.overrides, input.deployment.settings);
  const started = performance.now();
  const snapshot = await freeze(ctx, {
    root: input.workspace_dir,
    overrides,
    include_git: input.include_git,
    cache_file: path.join(path.dirname(input.workspace_dir), 'snapshot.cache'),
  });
  const snapshot_ms = Math.round(performance.now() - started);
  const accepted = await accept(ctx, queue, {
    deployment: input.deployment,
    idempotency: input.idempotency,
    row: {
      ...input.attribution,
      source_sandbox_id: input.sandbox.id,
      source_sha256: snapshot.sha256,
      source_key: snapshot.key,
      source_size_bytes: snapshot.size_bytes,
      source_files: snapshot.files,
      request: {
        overrides,
        environment: input.environment,
        grace_ms: input.grace_ms,
        startup_timeout_ms: input.startup_timeout_ms,
        promote: input.promote,
        reuse: input.reuse,
      },
      retry_of: null,
      stage_times: { snapshot: snapshot_ms },
      metadata: input.metadata,
    },
    env: input.env,
  });
  return { ...accepted, secrets_left_out: snapshot.secrets_left_out };
}

export async function acceptRetry(
  ctx: EngineContext,
  queue: Queue,
  of: {
    deployment: Deployment;
    version: Version;
    idempotency: KeyScope | null;
    promote: boolean;
    reuse: boolean;
  },
): Promise<Accepted> {
  const { version } = of;
  const { source_key } = await versionSecrets(ctx.db, version.id);
  if ((await holdObjects(ctx.db, ctx.objects, [{ key: source_key, kind: 'source' }])) !== null)
    throw new KilnError(
      'ARTIFACT_GONE',
      `The source snapshot of ${version.id} was collected by retention; publish again.`,
    );
  const { external_workspace_id, external_user_id, external_project_id } = version;
  const accepted = await accept(ctx, queue, {
    deployment: of.deployment,
    idempotency: of.idempotency,
    row: {
      external_workspace_id,
      external_user_id,
      external_project_id,
      source_sandbox_id: version.source_sandbox_id,
      source_sha256: version.source_sha256,
      source_key,
      source_size_bytes: version.source_size_bytes,
      source_files: version.source_files,
      request: { ...version.request, promote: of.promote, reuse: of.reuse },
      retry_of: version.id,
      stage_times: {},
      metadata: version.metadata,
    },
    env: {},
  });
  return { ...accepted, secrets_left_out: [] };
}

type RowOfRequest = Omit<
  NewVersion,
  | 'id'
  | 'tenant_id'
  | 'workspace_id'
  | 'project_id'
  | 'deployment_id'
  | 'version_number'
  | 'seq'
  | 'build_id'
  | 'env_encrypted'
  | 'build_env_encrypted'
>;

async function accept(
  ctx: EngineContext,
  queue: Queue,
  of: {
    deployment: Deployment;
    idempotency: KeyScope | null;
    row: RowOfRequest;
    env: Record<string, string>;
  },
): Promise<Omit<Accepted, 'secrets_left_out'>> {
  return transact(ctx.db, async (trx) => {
    const deployment = await lockLivingDeployment(trx, of.deployment.id);
    await refuseTooMany(trx, deployment, 'publish', ctx.bounds.queued_operations);
    const seq = await takeSeq(trx, deployment.id);
    const id = ctx.newId('ver');
    const build_id = ctx.newId('bld');
    const env = await freezeEnv(trx, ctx, deployment.id, of.row.request.environment, of.env);
    const { tenant_id, workspace_id, project_id } = deployment;
    const version = await insertVersion(trx, {
      ...of.row,
      id,
      build_id,
      seq,
      tenant_id,
      workspace_id,
      project_id,
      deployment_id: deployment.id,
      version_number: await takeVersionNumber(trx, deployment.id),
      env_encrypted: sealEnv(ctx.vault, id, 'run', env.run),
      build_env_encrypted: sealEnv(ctx.vault, id, 'build', env.build),
    });
    const ids = { tenant_id, deployment_id: deployment.id, version_id: id };
    await insertBuild(trx, { id: build_id, ...ids, triggered_by: 'manual' });
    const operation = await insertOperation(trx, { id: ctx.newId('op'), kind: 'publish', seq, ...ids });
    if (deployment.active_version_id === null) await setDeploymentState(trx, deployment.id, 'building');
    if (of.idempotency) await recordSubject(trx, of.idempotency, { operation_id: operation.id });
    await queue.send(trx, operation);
    return { version, operation };
  });
}

/** What this version sees of the environment from now on, whatever is changed later. */
async function freezeEnv(
  trx: Trx,
  ctx: EngineContext,
  deployment_id: string,
  environment: string,
  extra: Record<string, string>,
): Promise<{ run: VersionEnv; build: VersionEnv }> {
  const vars = await readEnvVars(trx, ctx.vault, deployment_id, environment);
  const run: VersionEnv = { vars: {}, secret_names: [] };
  const build: VersionEnv = { vars: {}, secret_names: [] };
  const add = (name: string, value: string, is_secret: boolean, at_build: boolean) => {
    for (const env of at_build ? [run, build] : [run]) {
      env.vars[name] = value;
      env.secret_names = env.secret_names.filter((n) => n !== name);
      if (is_secret) env.secret_names.push(name);
    }
  };
  for (const v of vars) add(v.name, v.value, v.is_secret, v.at_build || isPublicName(v.name));
  for (const [name, value] of Object.entries(extra)) add(name, value, looksSecret(name), isPublicName(name));
  return { run, build };
}

/** What the publish does not say, the deployment's settings do. */
export function withSettings(overrides: PlanOverrides, settings: DeploymentSettings): PlanOverrides {
  const fallback = {
    install_command: settings.install_command,
    build_command: settings.build_command,
    run_command: settings.run_command,
    output_path: settings.output_path,
    port: settings.port,
    health_check_path: settings.health_check_path,
  };
  const merged: Record<string, unknown> = { ...overrides };
  for (const [name, value] of Object.entries(fallback))
    if (merged[name] === undefined && value !== null) merged[name] = value;
  return merged as PlanOverrides;
}

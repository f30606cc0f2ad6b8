/** Publishing: from a deployment, from a sandbox (the bridge), again from a stored snapshot. One answer for all. */
import type { Deployment } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import { isFinished } from '../domain/operation.ts';
import type { PlanOverrides } from '../domain/plan.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { Accepted } from '../engine/engine.ts';
import { refuseTooMany } from '../engine/queue.ts';
import { deploymentById, deploymentNamed } from '../store/deployment.ts';
import { getOperation } from '../store/operation.ts';
import { releasesById } from '../store/release.ts';
import { lockNames } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import { newestVersionId, versionById } from '../store/version.ts';
import { needScope } from './auth.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import type { PublishFields } from './contract/publish-input.ts';
import * as contract from './contract/version.ts';
import { makeDeployment, presentDeployment, refuseProducts } from './deployment.ts';
import { attach } from './domain.ts';
import { checkEnv } from './env-input.ts';
import { findDeployment, findVersion, notFound, usable } from './find.ts';
import { labelsOf } from './owner.ts';
import { presentRelease } from './release.ts';
import { presentService } from './service.ts';
import { presentVersion } from './version.ts';
import { waitMs } from './wait.ts';
import { workspacePath } from './workspace-path.ts';

/** What the caller wants of the plan; only what was said, the engine adds the deployment's settings. */
function overridesOf(body: PublishFields): PlanOverrides {
  const kind = body.kind ?? body.type ?? body.mode;
  const output = body.output_path ?? body.path ?? body.source_path ?? body.source_snapshot_path;
  const run_command = body.run_command ?? body.start_command;
  return {
    ...(kind ? { kind: kind === 'server' ? ('dynamic' as const) : kind } : {}),
    ...(output ? { output_path: workspacePath(output, 'output_path') } : {}),
    ...(body.root ? { root: workspacePath(body.root, 'root') } : {}),
    ...(body.install_command ? { install_command: body.install_command } : {}),
    ...(body.build_command ? { build_command: body.build_command } : {}),
    ...(run_command ? { run_command } : {}),
    ...(body.port ? { port: body.port } : {}),
    ...(body.health_check_path ? { health_check_path: body.health_check_path } : {}),
    ...(body.entrypoint ? { entrypoint: workspacePath(body.entrypoint, 'entrypoint') } : {}),
    ...(body.spa === undefined || body.spa === null ? {} : { spa: body.spa }),
  };
}

function refuseUnsupported(body: PublishFields): void {
  refuseProducts(body);
  const empty = (value: unknown) =>
    value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);
  if (!empty(body.data_services))
    throw new KilnError('UNSUPPORTED', 'This engine makes no data services; run them elsewhere.', {
      details: { field: 'data_services' },
    });
}

async function publish(
  call: AnyCall,
  deployment: Deployment,
  sandbox: Sandbox,
  body: PublishFields,
  wait: number | undefined,
): Promise<Reply> {
  refuseUnsupported(body);
  const promote = body.promote ?? true;
  if (promote) needScope(call.caller, 'deployments:promote', 'promote; publish with `promote: false`');
  // Before the snapshot is made; the engine counts again when it writes.
  const { queued_operations } = call.deps.limits;
  await refuseTooMany(call.deps.database.db, deployment, 'publish', queued_operations);
  const domain = body.domain ?? body.custom_domain;
  if (domain) {
    needScope(call.caller, 'domains:write', 'attach a domain');
    await attach(call, deployment, { domain });
  }
  const labels = labelsOf(body);
  const accepted = await call.deps.engine.publish({
    deployment,
    sandbox,
    overrides: overridesOf(body),
    environment: body.environment ?? 'production',
    grace_ms: body.grace_ms ?? (body.grace_sec == null ? null : Math.round(body.grace_sec * 1000)),
    startup_timeout_ms: body.startup_timeout_ms ?? null,
    promote,
    reuse: body.reuse ?? true,
    include_git: body.include_git ?? false,
    metadata: body.metadata ?? {},
    env: checkEnv(body.env ?? {}, 'env'),
    idempotency: call.idempotency?.scope ?? null,
    attribution: {
      external_workspace_id: labels.external_workspace_id ?? deployment.external_workspace_id,
      external_user_id: labels.external_user_id ?? deployment.external_user_id,
      external_project_id: labels.external_project_id ?? deployment.external_project_id,
    },
  });
  return answer(call, accepted, wait);
}

/** What an attempt with the same Idempotency-Key had accepted before its answer was lost. */
async function before(call: AnyCall): Promise<Accepted | null> {
  const previous = call.idempotency?.previous;
  return previous ? call.deps.engine.acceptedBefore(previous) : null;
}

/** 202 in its current state; with `wait` held until the outcome is known (200) or the time is over. */
async function answer(call: AnyCall, accepted: Accepted, wait: number | undefined): Promise<Reply> {
  const { db } = call.deps.database;
  const wait_ms = waitMs(call.request, wait);
  let operation = (await getOperation(db, accepted.operation.id)) ?? accepted.operation;
  if (wait_ms > 0 && !isFinished(operation.state))
    operation = await call.deps.engine.waitForOperation(operation.id, wait_ms, call.signal);
  const version = await versionById(db, accepted.version.id);
  const deployment = (await deploymentById(db, version.deployment_id))!;
  const releases = await releasesById(db, version.release_id === null ? [] : [version.release_id]);
  const release = version.release_id === null ? undefined : releases.get(version.release_id);
  const shown = await presentDeployment(call, deployment);
  const body: contract.PublishedView = {
    deployment_product: 'miosa_deploy',
    data: {
      deployment_id: deployment.id,
      version_id: version.id,
      release_id: version.release_id,
      operation_id: operation.id,
      state: deployment.state,
      url: shown.public_url,
      public_url: shown.public_url,
      promoted: operation.promoted ?? false,
      promotion_pending: version.request.promote && !isFinished(operation.state),
      deployment: shown,
      version: presentVersion(version, release),
      release: release ? presentRelease(release, { ...version, health_check_path: null }) : null,
      services: [presentService(deployment, version.kind)],
      secrets_left_out: accepted.secrets_left_out,
    },
  };
  return reply(body, isFinished(operation.state) ? 200 : 202);
}

/** The deployment the bridge publishes into: the one named, found or made beside the sandbox. */
async function bridgeTarget(
  call: AnyCall,
  sandbox: Sandbox,
  body: { deployment_id?: string | null; name?: string | null; slug?: string | null } & PublishFields,
): Promise<Deployment> {
  if (body.deployment_id) return findDeployment(call, body.deployment_id);
  const made = call.idempotency?.previous?.deployment_id;
  if (typeof made === 'string') return findDeployment(call, made);
  const name = body.name ?? sandbox.name;
  const { workspace_id, project_id } = sandbox;
  return transact(call.deps.database.db, async (trx) => {
    await lockNames(trx, workspace_id);
    const found = await deploymentNamed(trx, workspace_id, body.slug ?? name);
    if (found) {
      if (call.caller.project_id !== null && found.project_id !== call.caller.project_id)
        throw new KilnError('CONFLICT', `The name ${JSON.stringify(name)} is taken; choose another.`);
      return found;
    }
    needScope(call.caller, 'deployments:write', 'create a deployment');
    return makeDeployment(trx, call, {
      name,
      slug: body.slug ?? null,
      source_type: 'sandbox',
      workspace_id,
      project_id,
      labels: {
        external_workspace_id: body.external_workspace_id ?? sandbox.external_workspace_id,
        external_user_id: body.external_user_id ?? sandbox.external_user_id,
        external_project_id: body.external_project_id ?? sandbox.external_project_id,
      },
      body: {},
      env: {},
    });
  });
}

const bridge = (route: typeof contract.deployFromSandbox | typeof contract.publishFromSandbox): Mounted =>
  handle(route, async (call) => {
    const known = await before(call);
    if (known) return answer(call, known, call.query.wait);
    refuseUnsupported(call.body);
    needScope(call.caller, 'sandboxes:read', 'read this sandbox');
    const sandbox = await usable(call, call.params.id);
    const deployment = await bridgeTarget(call, sandbox, call.body);
    return publish(call, deployment, sandbox, call.body, call.query.wait);
  });

export const publishHandlers: Mounted[] = [
  handle(contract.publish, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const known = await before(call);
    if (known) return answer(call, known, call.query.wait);
    needScope(call.caller, 'sandboxes:read', 'read this sandbox');
    const sandbox = await usable(call, call.body.source_sandbox_id);
    return publish(call, deployment, sandbox, call.body, call.query.wait);
  }),
  bridge(contract.deployFromSandbox),
  bridge(contract.publishFromSandbox),
  handle(contract.retryVersion, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const version = await findVersion(call, deployment.id, call.params.version_id);
    const promote = call.body.promote ?? version.request.promote;
    if (promote) needScope(call.caller, 'deployments:promote', 'promote; retry with `promote: false`');
    const known = await before(call);
    const idempotency = call.idempotency?.scope ?? null;
    const accepted =
      known ??
      (await call.deps.engine.retry(version, { idempotency, promote, reuse: call.body.reuse ?? true }));
    return answer(call, accepted, call.query.wait);
  }),
  handle(contract.redeploy, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    needScope(call.caller, 'deployments:promote', 'promote');
    const known = await before(call);
    return redeployed(call, deployment, known ?? (await redeploy(call, deployment, call.body.reuse ?? true)));
  }),
];

async function redeploy(call: AnyCall, deployment: Deployment, reuse: boolean): Promise<Accepted> {
  const { db } = call.deps.database;
  const id = deployment.active_version_id ?? (await newestVersionId(db, deployment.id));
  if (id === null)
    throw new KilnError('CONFLICT', `Nothing was published to ${deployment.slug} yet; publish first.`);
  const idempotency = call.idempotency?.scope ?? null;
  return call.deps.engine.retry(await versionById(db, id), { idempotency, promote: true, reuse });
}

/** A build to those who wait for a build, a deployment to those who wait for a deployment. */
async function redeployed(call: AnyCall, deployment: Deployment, accepted: Accepted): Promise<Reply> {
  const { version, operation } = accepted;
  if (version.deployment_id !== deployment.id) throw notFound('version', version.id);
  return reply(
    {
      data: {
        id: version.build_id,
        build_id: version.build_id,
        deployment_id: deployment.id,
        version_id: version.id,
        operation_id: operation.id,
        tenant_id: deployment.tenant_id,
        name: deployment.name,
        slug: deployment.slug,
        state: 'building',
        triggered_by: 'manual',
        log_url: `/api/v1/deployments/${deployment.id}/builds/${version.build_id}/logs`,
        public_url: (await presentDeployment(call, deployment)).public_url,
        metadata: version.metadata,
        created_at: version.created_at.toISOString(),
      },
    },
    202,
  );
}

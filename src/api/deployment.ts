/** Deployments: made, listed, changed, scaled, removed. Publishing into one is publish.ts. */
import type { Deployment } from '../domain/deployment.ts';
import { isPublicName, looksSecret } from '../domain/env-var.ts';
import { KilnError } from '../domain/errors.ts';
import { slugify } from '../domain/slug.ts';
import type { Trx } from '../store/db.ts';
import {
  countDeployments,
  type DeploymentChange,
  type DeploymentFacts,
  deploymentByName,
  deploymentFacts,
  insertDeployment,
  listDeployments,
  lockLivingDeployment,
  slugTaken,
  updateDeployment,
} from '../store/deployment.ts';
import { setEnvVar } from '../store/env-var.ts';
import { appendEvent } from '../store/event.ts';
import { recordSubject } from '../store/idempotency.ts';
import { runtimeSeconds, unstoppedInstances } from '../store/instance.ts';
import { freeSlug, lockNames } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import { type AnyCall, data, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/deployment.ts';
import { SIZE_NAMES, SIZES, type SizeName } from './contract/size.ts';
import { checkEnv } from './env-input.ts';
import { invalidFields } from './errors.ts';
import { findDeployment, inProject, iso, notFound, pageOf } from './find.ts';
import { labelsOf, ownerFor } from './owner.ts';
import { workspacePath } from './workspace-path.ts';

const MIB = 1024 * 1024;

export async function presentDeployments(
  call: AnyCall,
  rows: Deployment[],
): Promise<contract.DeploymentView[]> {
  const facts = await deploymentFacts(
    call.deps.database.db,
    rows.map((row) => row.id),
  );
  return rows.map((row) => {
    const of = facts.get(row.id)!;
    return view(row, of, call.deps.engine.publicUrl(row.slug, of.host_label));
  });
}

export async function presentDeployment(call: AnyCall, row: Deployment): Promise<contract.DeploymentView> {
  return (await presentDeployments(call, [row]))[0]!;
}

function view(d: Deployment, facts: DeploymentFacts, url: string): contract.DeploymentView {
  const failure = d.active_version_id === null ? facts.newest_failure : null;
  return {
    id: d.id,
    tenant_id: d.tenant_id,
    owner_id: null,
    workspace_id: d.workspace_id,
    project_id: d.project_id,
    name: d.name,
    slug: d.slug,
    state: d.state,
    error_message: failure?.message ?? null,
    failure,
    repo_url: d.repo_url,
    repo_provider: null,
    branch: d.branch,
    build_command: d.settings.build_command,
    run_command: d.settings.run_command,
    runtime_image: null,
    current_build_id: facts.current_build_id,
    active_version_id: d.active_version_id,
    active_release_id: facts.active_release_id,
    running_artifact_sha256: facts.running_artifact_sha256,
    source_type: d.source_type,
    auto_deploy: d.auto_deploy,
    custom_domain_id: facts.custom_domain_id,
    linked_database_id: null,
    deployment_product: 'miosa_deploy',
    docker_deploy_host_id: null,
    docker_deploy_app: null,
    settings: d.settings,
    desired_replicas: d.state === 'stopped' ? 0 : d.desired_replicas,
    size: d.size,
    metadata: d.metadata,
    external_workspace_id: d.external_workspace_id,
    external_user_id: d.external_user_id,
    external_project_id: d.external_project_id,
    public_url: url,
    auto_subdomain: url,
    url,
    created_at: iso(d.created_at),
    updated_at: iso(d.updated_at),
  };
}

type SettingsInput = Pick<
  contract.ChangeDeployment,
  | 'install_command'
  | 'build_command'
  | 'run_command'
  | 'output_path'
  | 'port'
  | 'health_check_path'
  | 'grace_ms'
  | 'grace_sec'
  | 'startup_timeout_ms'
>;

/** What was sent replaces, `null` clears, the rest stays. */
function settingsFrom(input: SettingsInput, before: Deployment['settings']): Deployment['settings'] {
  const settings = { ...before };
  const { output_path, grace_sec, ...rest } = input;
  for (const field of [
    'install_command',
    'build_command',
    'run_command',
    'port',
    'health_check_path',
    'grace_ms',
    'startup_timeout_ms',
  ] as const)
    if (rest[field] !== undefined) (settings as Record<string, unknown>)[field] = rest[field];
  if (output_path !== undefined)
    settings.output_path = output_path === null ? null : workspacePath(output_path, 'output_path');
  if (grace_sec !== undefined && rest.grace_ms === undefined)
    settings.grace_ms = grace_sec === null ? null : Math.round(grace_sec * 1000);
  return settings;
}

const NO_SETTINGS: Deployment['settings'] = {
  install_command: null,
  build_command: null,
  run_command: null,
  output_path: null,
  port: null,
  health_check_path: null,
  grace_ms: null,
  startup_timeout_ms: null,
  memory_bytes: null,
};

export interface Wanted {
  name: string;
  slug: string | null;
  source_type: Deployment['source_type'];
  workspace_id: string;
  project_id: string;
  labels: ReturnType<typeof labelsOf>;
  body: Partial<contract.CreateDeployment>;
  env: Record<string, string>;
}

/** Writes the row, its variables and its event. The caller holds the workspace's names. Errors: TOO_MANY, CONFLICT. */
export async function makeDeployment(trx: Trx, call: AnyCall, of: Wanted): Promise<Deployment> {
  const { deps, caller } = call;
  if ((await countDeployments(trx, caller.tenant_id)) >= deps.limits.deployments)
    throw new KilnError('TOO_MANY', `There are ${deps.limits.deployments} deployments; remove some first.`);
  const taken = (slug: string) => slugTaken(trx, of.workspace_id, slug);
  if (of.slug !== null && (await taken(of.slug)))
    throw new KilnError('CONFLICT', `The slug \`${of.slug}\` is taken in this workspace.`);
  const deployment = await insertDeployment(trx, {
    id: deps.newId('dep'),
    tenant_id: caller.tenant_id,
    workspace_id: of.workspace_id,
    project_id: of.project_id,
    ...of.labels,
    name: of.name,
    slug: of.slug ?? (await freeSlug(slugify(of.name, 'app'), taken)),
    state: 'pending',
    source_type: of.source_type,
    repo_url: of.body.repo_url ?? null,
    branch: of.body.branch ?? null,
    auto_deploy: of.body.auto_deploy ?? false,
    settings: settingsFrom(of.body, NO_SETTINGS),
    metadata: of.body.metadata ?? {},
    desired_replicas: 1,
    size: 'small',
  });
  for (const [name, value] of Object.entries(of.env))
    await setEnvVar(trx, deps.vault, {
      deployment_id: deployment.id,
      environment: 'production',
      name,
      value,
      is_secret: looksSecret(name),
      at_build: isPublicName(name),
    });
  await appendEvent(trx, {
    id: deps.newId('evt'),
    tenant_id: caller.tenant_id,
    type: 'deployment.created',
    deployment_id: deployment.id,
    data: { deployment_id: deployment.id, name: deployment.name, slug: deployment.slug, ...of.labels },
  });
  if (call.idempotency) await recordSubject(trx, call.idempotency.scope, { deployment_id: deployment.id });
  return deployment;
}

async function create(call: AnyCall, body: contract.CreateDeployment, project_id?: string): Promise<Reply> {
  const made = call.idempotency?.previous?.deployment_id;
  if (typeof made === 'string')
    return data(await presentDeployment(call, await findDeployment(call, made)), 201);
  refuseProducts(body);
  const env = checkEnv(body.env ?? {}, 'env');
  const deployment = await transact(call.deps.database.db, async (trx) => {
    const { workspace, project } = await ownerFor(trx, call, {
      ...body,
      project_id: project_id ?? body.project_id,
    });
    await lockNames(trx, workspace.id);
    return makeDeployment(trx, call, {
      name: body.name,
      slug: body.slug ?? null,
      source_type: body.source_type ?? 'sandbox',
      workspace_id: workspace.id,
      project_id: project.id,
      labels: labelsOf(body),
      body,
      env,
    });
  });
  return data(await presentDeployment(call, deployment), 201);
}

/** Errors: UNSUPPORTED, for products and databases this engine does not have. */
export function refuseProducts(body: {
  deployment_type?: string | null;
  deployment_product?: string | null;
  database?: unknown;
  metadata?: Record<string, unknown> | null;
}): void {
  const product = body.deployment_type ?? body.deployment_product ?? body.metadata?.deployment_product;
  if (typeof product === 'string' && product.replace('-', '_') === 'docker_deploy')
    throw new KilnError('UNSUPPORTED', 'Docker App Engine hosts do not exist here; publish the app itself.', {
      details: { field: 'deployment_product' },
    });
  if (body.database !== undefined && body.database !== null && body.database !== false)
    throw new KilnError(
      'UNSUPPORTED',
      'This engine makes no databases; run one elsewhere and set DATABASE_URL as a variable.',
      { details: { field: 'database' } },
    );
}

async function change(call: AnyCall, id: string, body: contract.ChangeDeployment): Promise<Reply> {
  await findDeployment(call, id);
  const row = await transact(call.deps.database.db, async (trx) => {
    // As it is now: two changes at once both stay.
    const before = await lockLivingDeployment(trx, id);
    const wanted = await changes(trx, before, body);
    if (Object.keys(wanted).length === 0) return before;
    const changed = await updateDeployment(trx, id, wanted);
    await appendEvent(trx, {
      id: call.deps.newId('evt'),
      tenant_id: before.tenant_id,
      type: 'deployment.updated',
      deployment_id: id,
      data: { deployment_id: id, changed: Object.keys(wanted), ...labelsOf(changed) },
    });
    return changed;
  });
  return data(await presentDeployment(call, row));
}

async function changes(
  trx: Trx,
  before: Deployment,
  body: contract.ChangeDeployment,
): Promise<DeploymentChange> {
  const wanted: DeploymentChange = {};
  if (body.name != null && body.name !== before.name) wanted.name = body.name;
  if (body.auto_deploy != null) wanted.auto_deploy = body.auto_deploy;
  if (body.metadata != null) wanted.metadata = body.metadata;
  for (const field of [
    'branch',
    'repo_url',
    'external_workspace_id',
    'external_user_id',
    'external_project_id',
  ] as const)
    if (body[field] !== undefined) wanted[field] = body[field];
  const settings = settingsFrom(body, before.settings);
  if (JSON.stringify(settings) !== JSON.stringify(before.settings)) wanted.settings = settings;
  if (body.slug != null && body.slug !== before.slug) {
    await lockNames(trx, before.workspace_id);
    if (await slugTaken(trx, before.workspace_id, body.slug))
      throw new KilnError('CONFLICT', `The slug \`${body.slug}\` is taken in this workspace.`);
    wanted.slug = body.slug;
  }
  return wanted;
}

async function scale(call: AnyCall, id: string, instances: number | null | undefined): Promise<Reply> {
  if (instances == null) throw invalidFields({ instances: ['is missing'] });
  const deployment = await findDeployment(call, id);
  return data(await presentDeployment(call, await call.deps.engine.scale(deployment, instances)));
}

async function resize(call: AnyCall, id: string, size: string): Promise<Reply> {
  if (!(SIZE_NAMES as readonly string[]).includes(size))
    throw invalidFields({ size: [`must be one of ${SIZE_NAMES.join(', ')}`] });
  await findDeployment(call, id);
  const memory_bytes = SIZES[size as SizeName].memory_mb * MIB;
  const row = await transact(call.deps.database.db, async (trx) => {
    const { settings } = await lockLivingDeployment(trx, id);
    return updateDeployment(trx, id, { size, settings: { ...settings, memory_bytes } });
  });
  return data(await presentDeployment(call, row));
}

const WINDOW_HOURS = { '1h': 1, '24h': 24, '7d': 168 };

async function metrics(call: AnyCall, id: string, window: keyof typeof WINDOW_HOURS): Promise<Reply> {
  const { db } = call.deps.database;
  const deployment = await findDeployment(call, id);
  const alive = (await unstoppedInstances(db, { deployment_id: id })).filter((i) => i.stopped_at === null);
  const count = (state: string) => alive.filter((i) => i.state === state).length;
  const checked = alive.map((i) => i.last_health_check_at).filter((at) => at !== null);
  const last = checked.length === 0 ? null : new Date(Math.max(...checked.map((at) => at.getTime())));
  const memory_bytes = deployment.settings.memory_bytes;
  return data({
    deployment_id: id,
    window,
    current: {
      state: deployment.state,
      runtime_instances: {
        active: alive.filter((i) => i.role === 'live').length,
        total: alive.length,
        healthy: count('healthy'),
        unhealthy: count('unhealthy'),
        error: count('error'),
        restarts: alive.reduce((sum, i) => sum + i.restart_count, 0),
      },
      cpu_limit_millicores: null,
      memory_limit_mb: memory_bytes === null ? null : Math.round(memory_bytes / MIB),
      usage: { runtime_sec: await runtimeSeconds(db, id, WINDOW_HOURS[window]), cost_cents: 0 },
      last_health_check_at: iso(last),
      last_heartbeat_at: iso(last),
    },
  });
}

export const deploymentHandlers: Mounted[] = [
  handle(contract.createDeployment, (call) => create(call, call.body)),
  handle(contract.createProjectDeployment, (call) => create(call, call.body, call.params.project_id)),
  handle(contract.listDeployments, async (call) => {
    const { limit: _l, cursor: _c, page: _p, page_size: _s, ...filter } = call.query;
    const { project_id } = call.caller;
    const page = await listDeployments(
      call.deps.database.db,
      call.caller.tenant_id,
      { ...filter, ...(project_id === null ? {} : { project_id }) },
      pageOf(call.query),
    );
    return reply({ data: await presentDeployments(call, page.data), next_cursor: page.next_cursor });
  }),
  handle(contract.getDeploymentByName, async (call) => {
    const row = await deploymentByName(call.deps.database.db, call.caller.tenant_id, call.params.name);
    if (!row || !inProject(call, row)) throw notFound('deployment', call.params.name);
    return data(await presentDeployment(call, row));
  }),
  handle(contract.getDeployment, async (call) =>
    data(await presentDeployment(call, await findDeployment(call, call.params.id))),
  ),
  handle(contract.updateDeployment, (call) => change(call, call.params.id, call.body)),
  handle(contract.deleteDeployment, async (call) => {
    await call.deps.engine.removeDeployment(await findDeployment(call, call.params.id));
    return reply({ id: call.params.id, deleted: true });
  }),
  handle(contract.scaleDeployment, (call) =>
    scale(call, call.params.id, call.body.instances ?? call.body.replicas),
  ),
  handle(contract.resizeDeployment, (call) => resize(call, call.params.id, call.body.size)),
  handle(contract.getDeploymentMetrics, (call) => metrics(call, call.params.id, call.query.window ?? '1h')),
];

/** Rows that tests need before they can test anything. */
import { randomBytes } from 'node:crypto';
import type { Deployment } from '../../src/domain/deployment.ts';
import { makeId } from '../../src/domain/ids.ts';
import type { Operation, OperationKind } from '../../src/domain/operation.ts';
import type { Version } from '../../src/domain/version.ts';
import { insertBuild } from '../../src/store/build.ts';
import type { Db, Trx } from '../../src/store/db.ts';
import { insertDeployment, takeSeq, takeVersionNumber } from '../../src/store/deployment.ts';
import { insertOperation } from '../../src/store/operation.ts';
import { ensureOwner, ensureTenant, type NewId } from '../../src/store/tenant.ts';
import { insertVersion } from '../../src/store/version.ts';

export const newId: NewId = (prefix) => makeId(prefix, Date.now(), randomBytes(16));

const NO_SETTINGS = {
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
const NOBODY = { external_workspace_id: null, external_user_id: null, external_project_id: null };

export async function aDeployment(
  db: Db,
  slug = `app-${randomBytes(4).toString('hex')}`,
  of?: Awaited<ReturnType<typeof ensureOwner>>,
): Promise<Deployment> {
  return db.transaction().execute(async (trx) => {
    const tenant = await ensureTenant(trx, newId, { name: 'Test', slug: 'test' });
    const owner = of ?? (await ensureOwner(trx, newId, tenant.id, {}));
    return insertDeployment(trx, {
      id: newId('dep'),
      tenant_id: owner!.workspace.tenant_id,
      workspace_id: owner!.workspace.id,
      project_id: owner!.project.id,
      ...NOBODY,
      name: slug,
      slug,
      state: 'pending',
      source_type: 'sandbox',
      repo_url: null,
      branch: null,
      auto_deploy: false,
      settings: NO_SETTINGS,
      metadata: {},
      desired_replicas: 1,
      size: 'small',
    });
  });
}

export async function aVersion(trx: Trx, deployment: Deployment, seq: number): Promise<Version> {
  const id = newId('ver');
  const build_id = newId('bld');
  const { tenant_id, workspace_id, project_id } = deployment;
  const version = await insertVersion(trx, {
    id,
    build_id,
    seq,
    tenant_id,
    workspace_id,
    project_id,
    ...NOBODY,
    deployment_id: deployment.id,
    version_number: await takeVersionNumber(trx, deployment.id),
    source_sandbox_id: null,
    source_sha256: '0'.repeat(64),
    source_key: `sources/${'0'.repeat(64)}.tar.zst`,
    source_size_bytes: 1,
    source_files: 1,
    request: {
      overrides: {},
      environment: 'production',
      grace_ms: null,
      startup_timeout_ms: null,
      promote: true,
      reuse: true,
    },
    retry_of: null,
    stage_times: {},
    metadata: {},
    env_encrypted: '',
    build_env_encrypted: '',
  });
  await insertBuild(trx, {
    id: build_id,
    tenant_id,
    deployment_id: deployment.id,
    version_id: id,
    triggered_by: 'manual',
  });
  return version;
}

/** An accepted intent, with a version of its own. */
export async function anOperation(db: Db, deployment: Deployment, kind: OperationKind): Promise<Operation> {
  return db.transaction().execute(async (trx) => {
    const seq = await takeSeq(trx, deployment.id);
    const version = await aVersion(trx, deployment, seq);
    return insertOperation(trx, {
      id: newId('op'),
      kind,
      seq,
      tenant_id: deployment.tenant_id,
      deployment_id: deployment.id,
      version_id: version.id,
    });
  });
}

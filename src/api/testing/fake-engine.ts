/** An engine without machines: it writes the rows the real one would, and the test says when something finishes. */
import path from 'node:path';
import { failure } from '../../domain/failure.ts';
import { isFinished, type Operation, type OperationKind } from '../../domain/operation.ts';
import type { Version } from '../../domain/version.ts';
import type { Accepted, Engine, PublishInput } from '../../engine/engine.ts';
import { refuseUnpromotable } from '../../engine/promote.ts';
import { insertBuild, setBuildState } from '../../store/build.ts';
import type { Database } from '../../store/db.ts';
import {
  deploymentById,
  markDeploymentDeleted,
  setReplicas,
  switchActiveVersion,
  takeSeq,
  takeVersionNumber,
} from '../../store/deployment.ts';
import { deleteEnvVar, setEnvVar } from '../../store/env-var.ts';
import { type KeyScope, recordSubject } from '../../store/idempotency.ts';
import { finishOperation, getOperation, insertOperation } from '../../store/operation.ts';
import { insertRelease } from '../../store/release.ts';
import type { NewId } from '../../store/tenant.ts';
import { transact } from '../../store/transact.ts';
import type { Vault } from '../../store/vault.ts';
import {
  insertVersion,
  recordPlan,
  recordPromoted,
  recordRelease,
  setVersionState,
  versionById,
} from '../../store/version.ts';
import { FakeSandboxes } from './fake-sandboxes.ts';
import { PLAN } from './plan.ts';

export class FakeEngine extends FakeSandboxes {
  readonly id = 'eng_fake';
  readonly inputs: PublishInput[] = [];
  readonly calls: string[] = [];
  /** Set to hold or break the next publishes. */
  before_publish: () => Promise<void> = async () => {};
  readonly #newId: NewId;
  readonly #vault: Vault;

  constructor(of: { database: Database; newId: NewId; vault: Vault; dir: string }) {
    super(of);
    this.#newId = of.newId;
    this.#vault = of.vault;
  }

  async prepare(): Promise<void> {}
  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  async publish(input: PublishInput): Promise<Accepted> {
    this.calls.push('publish');
    this.inputs.push(input);
    await this.before_publish();
    const { overrides, environment, grace_ms, startup_timeout_ms, promote, reuse } = input;
    return this.#accept(input.deployment.id, input.idempotency, {
      ...input.attribution,
      source_sandbox_id: input.sandbox.id,
      request: { overrides, environment, grace_ms, startup_timeout_ms, promote, reuse },
      metadata: input.metadata,
      retry_of: null,
    });
  }

  async retry(
    version: Version,
    by: { idempotency: KeyScope | null; promote: boolean; reuse: boolean },
  ): Promise<Accepted> {
    this.calls.push('retry');
    return this.#accept(version.deployment_id, by.idempotency, {
      external_workspace_id: null,
      external_user_id: null,
      external_project_id: null,
      source_sandbox_id: version.source_sandbox_id,
      request: { ...version.request, promote: by.promote, reuse: by.reuse },
      metadata: version.metadata,
      retry_of: version.id,
    });
  }

  async #accept(
    deployment_id: string,
    idempotency: KeyScope | null,
    row: Pick<
      Version,
      | 'external_workspace_id'
      | 'external_user_id'
      | 'external_project_id'
      | 'source_sandbox_id'
      | 'request'
      | 'metadata'
      | 'retry_of'
    >,
  ): Promise<Accepted> {
    return transact(this.database.db, async (trx) => {
      const deployment = (await deploymentById(trx, deployment_id))!;
      const { tenant_id, workspace_id, project_id } = deployment;
      const seq = await takeSeq(trx, deployment_id);
      const version = await insertVersion(trx, {
        ...row,
        id: this.#newId('ver'),
        build_id: this.#newId('bld'),
        tenant_id,
        workspace_id,
        project_id,
        deployment_id,
        version_number: await takeVersionNumber(trx, deployment_id),
        seq,
        source_sha256: 'a'.repeat(64),
        source_key: `sources/${'a'.repeat(64)}`,
        source_size_bytes: 10,
        source_files: 1,
        stage_times: { snapshot: 3 },
        env_encrypted: 'x',
        build_env_encrypted: 'x',
      });
      const ids = { tenant_id, deployment_id, version_id: version.id };
      await insertBuild(trx, { id: version.build_id, ...ids, triggered_by: 'manual' });
      const operation = await insertOperation(trx, { id: this.#newId('op'), kind: 'publish', seq, ...ids });
      if (idempotency) await recordSubject(trx, idempotency, { operation_id: operation.id });
      return { version, operation, secrets_left_out: ['.env'] };
    });
  }

  async acceptedBefore(subject: Record<string, unknown>): Promise<Accepted | null> {
    if (typeof subject.operation_id !== 'string') return null;
    const operation = (await getOperation(this.database.db, subject.operation_id))!;
    const version = await versionById(this.database.db, operation.version_id);
    return { operation, version, secrets_left_out: [] };
  }

  /** What the pipeline would do: the version becomes ready (or fails) and, if it asked to, live. */
  async finish(version_id: string, outcome: 'live' | 'failed' = 'live'): Promise<void> {
    await transact(this.database.db, async (trx) => {
      const version = await versionById(trx, version_id);
      const { id: operation_id } = await trx
        .selectFrom('operations')
        .select('id')
        .where('version_id', '=', version_id)
        .executeTakeFirstOrThrow();
      await setVersionState(trx, version_id, 'building');
      await setBuildState(trx, version.build_id, 'building');
      if (outcome === 'failed') {
        const why = failure({
          stage: 'build',
          code: 'BUILD_FAILED',
          message: 'exit 1',
          next_step: 'Fix it.',
        });
        await setBuildState(trx, version.build_id, 'failed', { error_message: why.message });
        await setVersionState(trx, version_id, 'failed', { failure: why });
        await finishOperation(trx, operation_id, {
          state: 'failed',
          promoted: false,
          superseded: false,
          failure: why,
        });
        return;
      }
      await setBuildState(trx, version.build_id, 'succeeded');
      const release_id = await this.#release(trx, version);
      await recordRelease(trx, version_id, release_id, false);
      await setVersionState(trx, version_id, 'ready');
      const promoted = version.request.promote && (await this.#activate(trx, version, version.seq));
      await finishOperation(trx, operation_id, {
        state: 'succeeded',
        promoted,
        superseded: false,
        failure: null,
      });
    });
  }

  async #release(trx: Parameters<typeof insertRelease>[0], version: Version): Promise<string> {
    await recordPlan(trx, version.id, {
      plan: PLAN,
      kind: 'dynamic',
      run_settings: {
        port: 3000,
        health_check_path: '/',
        startup_timeout_ms: 60_000,
        grace_ms: 0,
        probe_timeout_ms: 1000,
        probe_interval_ms: 500,
        replicas: 1,
        memory_bytes: 2 ** 29,
      },
    });
    const { tenant_id, workspace_id, project_id } = version;
    const { external_workspace_id, external_user_id, external_project_id } = version;
    const release = await insertRelease(trx, {
      id: this.#newId('rel'),
      tenant_id,
      workspace_id,
      project_id,
      external_workspace_id,
      external_user_id,
      external_project_id,
      deployment_id: version.deployment_id,
      version_id: version.id,
      kind: 'rootfs',
      sha256: 'b'.repeat(64),
      object_key: 'releases/b',
      size_bytes: 100,
      manifest: { files: 1, total_bytes: 10, entrypoint: null, base: 'test' },
      start_command: 'node server.js',
      port: 3000,
      reuse_key: 'k',
      ready_at: new Date(),
    });
    return release.id;
  }

  async #activate(trx: Parameters<typeof insertRelease>[0], version: Version, seq: number): Promise<boolean> {
    const { active_version_id } = (await deploymentById(trx, version.deployment_id))!;
    const of = { deployment_id: version.deployment_id, version_id: version.id, seq };
    if (!(await switchActiveVersion(trx, of))) return false;
    if (active_version_id && active_version_id !== version.id)
      await setVersionState(trx, active_version_id, 'archived');
    if ((await versionById(trx, version.id)).state === 'archived')
      await setVersionState(trx, version.id, 'ready');
    await recordPromoted(trx, version.id);
    return true;
  }

  async promote(
    version: Version,
    by: { kind: OperationKind; idempotency: KeyScope | null; wait_ms: number },
  ) {
    this.calls.push(by.kind);
    await refuseUnpromotable(this.database.db, version);
    const operation = await transact(this.database.db, async (trx) => {
      const seq = await takeSeq(trx, version.deployment_id);
      const { tenant_id, deployment_id } = version;
      const id = this.#newId('op');
      await insertOperation(trx, {
        id,
        kind: by.kind,
        tenant_id,
        deployment_id,
        version_id: version.id,
        seq,
      });
      const promoted = await this.#activate(trx, version, seq);
      await finishOperation(trx, id, { state: 'succeeded', promoted, superseded: false, failure: null });
      if (by.idempotency) await recordSubject(trx, by.idempotency, { operation_id: id });
      return (await getOperation(trx, id))!;
    });
    const deployment = (await deploymentById(this.database.db, version.deployment_id))!;
    const changes = [{ what: 'port' as const, name: null, from: '3000', to: '3001' }];
    return { deployment, version, operation, pending: false, changes };
  }

  async verify(version: Version, by: Parameters<Engine['verify']>[1]): Promise<Operation> {
    this.calls.push('verify');
    const { tenant_id, deployment_id, id: version_id } = version;
    const id = this.#newId('op');
    const sha256 = 'b'.repeat(64);
    await transact(this.database.db, async (trx) => {
      const seq = await takeSeq(trx, deployment_id);
      await insertOperation(trx, { id, kind: 'verify', tenant_id, deployment_id, version_id, seq });
      if (by.idempotency) await recordSubject(trx, by.idempotency, { operation_id: id });
      const result = { stored_sha256: sha256, rebuilt_sha256: sha256, differences: [], differences_total: 0 };
      await finishOperation(trx, id, {
        state: 'succeeded',
        promoted: false,
        superseded: false,
        failure: null,
        result: { reproducible: true, ...result },
      });
    });
    return (await getOperation(this.database.db, id))!;
  }

  async cancel(operation_id: string): Promise<Operation> {
    this.calls.push('cancel');
    await transact(this.database.db, (trx) =>
      finishOperation(trx, operation_id, {
        state: 'cancelled',
        promoted: false,
        superseded: false,
        failure: null,
      }),
    );
    return (await getOperation(this.database.db, operation_id))!;
  }

  async waitForOperation(id: string, timeout_ms: number, signal?: AbortSignal): Promise<Operation> {
    const until = Date.now() + timeout_ms;
    for (;;) {
      const operation = (await getOperation(this.database.db, id))!;
      if (isFinished(operation.state) || Date.now() >= until || signal?.aborted) return operation;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async scale(deployment: { id: string }, desired_replicas: number) {
    return transact(this.database.db, (trx) => setReplicas(trx, deployment.id, desired_replicas));
  }

  async removeDeployment(deployment: { id: string }): Promise<void> {
    await transact(this.database.db, (trx) => markDeploymentDeleted(trx, deployment.id));
  }

  async setEnv(deployment: { id: string }, vars: Parameters<Engine['setEnv']>[1]): Promise<void> {
    await transact(this.database.db, async (trx) => {
      for (const v of vars) await setEnvVar(trx, this.#vault, { ...v, deployment_id: deployment.id });
    });
  }

  async unsetEnv(deployment: { id: string }, environment: string, name: string): Promise<boolean> {
    return transact(this.database.db, (trx) => deleteEnvVar(trx, deployment.id, environment, name));
  }

  buildLogPath(build_id: string): string {
    return path.join(this.dir, 'builds', `${build_id}.jsonl`);
  }

  instanceLogPath(instance_id: string): string {
    return path.join(this.dir, 'instances', `${instance_id}.jsonl`);
  }

  publicUrl(slug: string): string {
    return `http://${slug}.default.localhost:7080`;
  }

  async gc(options: { dry_run: boolean }) {
    return { dry_run: options.dry_run, removed: [], kept: [], removed_bytes: 0 };
  }

  async doctor(): ReturnType<Engine['doctor']> {
    return {
      ok: true,
      engine_id: this.id,
      node: process.version,
      platform: 'linux-x64',
      data_dir: this.dir,
      database: { kind: 'pglite', ok: true, detail: 'answers' },
      isolation: { builds: 'fake', host: 'fake', images: null, dockerfiles: null, drivers: [] },
      base: 'test',
      disk: [],
      disk_free_bytes: 1,
    };
  }
}

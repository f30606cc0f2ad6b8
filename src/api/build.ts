/** Builds and their logs. */
import type { Build } from '../domain/build.ts';
import type { Deployment } from '../domain/deployment.ts';
import { getBuild, listBuilds } from '../store/build.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/build.ts';
import { findDeployment, iso, notFound, pageOf } from './find.ts';
import { followBuild, readLines, textOf } from './log.ts';
import { buildLogUri } from './release.ts';
import { eventStream, wantsStream } from './sse.ts';

function presentBuild(b: Build, deployment: Deployment): contract.BuildView {
  const duration_ms = b.started_at && b.finished_at ? b.finished_at.getTime() - b.started_at.getTime() : null;
  return {
    id: b.id,
    deployment_id: b.deployment_id,
    version_id: b.version_id,
    tenant_id: b.tenant_id,
    external_workspace_id: deployment.external_workspace_id,
    external_user_id: deployment.external_user_id,
    external_project_id: deployment.external_project_id,
    state: b.state,
    triggered_by: b.triggered_by,
    commit_sha: null,
    commit_message: null,
    image_digest: null,
    error_message: b.error_message,
    log_url: buildLogUri(b.deployment_id, b.id),
    log_bytes: b.log_bytes,
    peak_memory_bytes: b.peak_memory_bytes,
    report: b.report,
    started_at: iso(b.started_at),
    finished_at: iso(b.finished_at),
    duration_ms,
    created_at: iso(b.created_at),
  };
}

async function findBuild(call: AnyCall, deployment_id: string, id: string): Promise<Build> {
  const build = await getBuild(call.deps.database.db, call.caller.tenant_id, id);
  if (!build || build.deployment_id !== deployment_id) throw notFound('build', id);
  return build;
}

export const buildHandlers: Mounted[] = [
  handle(contract.listBuilds, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const page = await listBuilds(call.deps.database.db, deployment.id, pageOf(call.query));
    return reply({
      data: page.data.map((build) => presentBuild(build, deployment)),
      next_cursor: page.next_cursor,
    });
  }),
  handle(contract.getBuild, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    return data(presentBuild(await findBuild(call, deployment.id, call.params.build_id), deployment));
  }),
  handle(contract.getBuildLogs, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const build = await findBuild(call, deployment.id, call.params.build_id);
    if (wantsStream(call.request))
      return eventStream(call, (send, signal) => followBuild(call, build.id, build.version_id, send, signal));
    const tail = call.query.lines ?? 1000;
    const lines = await readLines(call.deps.engine.buildLogPath(build.id), 'build', build.id, tail);
    return data({
      build_id: build.id,
      deployment_id: deployment.id,
      state: build.state,
      lines,
      logs: textOf(lines),
    });
  }),
];

/**
 * Following an accepted operation to its end. The outcome is what the operation row says; the build log is only shown
 * beside it, and losing it changes nothing. An engine that restarts meanwhile is waited for: the publish survives it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { PublishedView, VersionView } from '../api/contract/version.ts';
import { isFinished } from '../domain/operation.ts';
import type { Cli } from './cli.ts';
import type { Client } from './client.ts';
import { CliError, EXIT, type ExitCode, interrupted } from './exit.ts';
import { plainText } from './output.ts';
import type { Progress } from './progress.ts';
import { reportOutcome } from './report.ts';
import { type Followed, StageReport } from './stages.ts';
import { warningsOf } from './warnings.ts';

const POLL_MS = 200;
/** How long an engine may be away before following gives up. */
const AWAY_MS = 120_000;
/** The last log lines may come a moment after the operation's end. */
const LOG_END_MS = 1000;

/** After `publish` and `retry`: shows the stages, then the outcome. */
export async function followPublished(
  cli: Cli,
  client: Client,
  progress: Progress,
  published: PublishedView['data'],
): Promise<ExitCode> {
  const { deployment, version, operation_id } = published;
  cli.out.emit({
    event: 'accepted',
    deployment_id: deployment.id,
    version_id: version.id,
    version_number: version.version_number,
    operation_id,
    build_id: version.build_id,
    url: deployment.public_url,
    secrets_left_out: published.secrets_left_out,
  });
  try {
    const followed = await follow(cli, client, progress, { operation_id, version, show_log: true });
    progress.stop();
    const warnings = await warningsOf(client, followed.version);
    return await reportOutcome(cli, client, {
      ...followed,
      warnings,
      secrets_left_out: published.secrets_left_out,
    });
  } catch (error) {
    progress.stop();
    if (
      error instanceof CliError &&
      [EXIT.interrupted, EXIT.unreachable].some((code) => code === error.exit_code)
    )
      cli.out.note(
        `The publish goes on. Watch it with \`kiln logs ${deployment.slug} -f\`, see \`kiln inspect ${version.id}\`, or stop it with \`kiln cancel ${version.id}\`.`,
      );
    throw error;
  }
}

/** Resolves when the operation is finished, with it and its version as they then are. */
export async function follow(
  cli: Cli,
  client: Client,
  progress: Progress,
  of: { operation_id: string; version: VersionView; show_log: boolean },
): Promise<Followed> {
  const stop_log = new AbortController();
  const log = of.show_log ? showLog(cli, client, progress, of.version, stop_log.signal) : Promise.resolve();
  const stages = new StageReport(progress);
  let away_since_ms: number | null = null;
  let stage = '';
  try {
    for (;;) {
      try {
        const operation = (
          await client.get('/operations/{operation_id}', { params: { operation_id: of.operation_id } })
        ).data;
        const finished = isFinished(operation.state);
        if (finished || operation.stage !== stage) {
          const version = await readVersion(client, of.version);
          stages.show(version, operation, finished);
          stage = operation.stage;
          if (finished) {
            // With --json every line of the log comes before the outcome.
            if (cli.out.json) await Promise.race([log, sleep(LOG_END_MS, undefined, { ref: false })]);
            return { operation, version };
          }
        }
        if (away_since_ms !== null) progress.detail('the engine is back');
        away_since_ms = null;
      } catch (error) {
        if (!(error instanceof CliError) || error.exit_code !== EXIT.unreachable) throw error;
        away_since_ms ??= performance.now();
        if (performance.now() - away_since_ms > AWAY_MS) throw error;
        progress.detail('the engine does not answer; waiting for it');
      }
      await sleep(POLL_MS, undefined, { signal: cli.interrupted }).catch(() => {
        throw interrupted();
      });
    }
  } finally {
    stop_log.abort();
  }
}

async function readVersion(client: Client, version: VersionView): Promise<VersionView> {
  const params = { id: version.deployment_id, version_id: version.id };
  return (await client.get('/deployments/{id}/versions/{version_id}', { params })).data;
}

async function showLog(
  cli: Cli,
  client: Client,
  progress: Progress,
  version: VersionView,
  signal: AbortSignal,
): Promise<void> {
  const path = `/deployments/${version.deployment_id}/builds/${version.build_id}/logs`;
  let shown = 0;
  while (!signal.aborted) {
    // Every stream begins with the log's first line.
    let at = 0;
    try {
      for await (const { event, data } of client.events(path, {}, signal)) {
        if (event === 'done') return;
        const { line, stream, ts } = data as { line?: unknown; stream?: unknown; ts?: unknown };
        if (event !== 'log_line' || typeof line !== 'string') continue;
        if (at++ < shown) continue;
        shown++;
        progress.detail(line);
        cli.out.emit({ event: 'log', stream, line: plainText(line), ts });
      }
    } catch {
      // A side channel. It ends when the engine does, which may be back soon: the publish waits for that as well.
    }
    await sleep(POLL_MS, undefined, { signal, ref: false }).catch(() => {});
  }
}

/** The outcome of a publish, promote or rollback: for people in words with the next step, for programs as data. */
import type { DeploymentView } from '../api/contract/deployment.ts';
import type { VersionView } from '../api/contract/version.ts';
import type { Cli } from './cli.ts';
import type { Client } from './client.ts';
import { EXIT, type ExitCode, exitOfFailure } from './exit.ts';
import { formatBytes, formatDuration, type Output, plainText } from './output.ts';
import { type Followed, STAGES } from './stages.ts';
import { showWarnings } from './warnings.ts';

export type FailureView = NonNullable<VersionView['failure']>;

export async function reportOutcome(
  cli: Cli,
  client: Client,
  of: Followed & { secrets_left_out: string[]; warnings?: string[] },
): Promise<ExitCode> {
  const { operation, version } = of;
  const params = { id: version.deployment_id };
  const deployment = (await client.get('/deployments/{id}', { params })).data;
  const exit_code = exitOf(of);
  cli.out.emit({
    event: 'finished',
    ok: exit_code === EXIT.ok,
    exit_code,
    url: deployment.public_url,
    promoted: operation.promoted,
    superseded: operation.superseded,
    failure: failureOf(of),
    secrets_left_out: of.secrets_left_out,
    warnings: of.warnings ?? [],
    deployment,
    version,
    operation,
  });
  if (cli.out.json) return exit_code;
  warnOfSecrets(cli.out, of.secrets_left_out);
  showWarnings(cli.out, of.warnings ?? []);
  const failure = failureOf(of);
  if (operation.state === 'succeeded') showSuccess(cli.out, deployment, of);
  else if (failure) showFailure(cli.out, failure, { deployment, version });
  else cli.out.note(`Version ${version.version_number} was ${operation.state}. Production is unchanged.`);
  return exit_code;
}

function failureOf({ operation, version }: Followed): FailureView | null {
  return operation.state === 'succeeded' ? null : (operation.failure ?? version.failure);
}

function exitOf(of: Followed): ExitCode {
  const { operation } = of;
  const failure = failureOf(of);
  if (operation.state === 'cancelled' || operation.superseded) return EXIT.cancelled;
  if (operation.state === 'succeeded') return EXIT.ok;
  return failure ? exitOfFailure(failure as Parameters<typeof exitOfFailure>[0]) : EXIT.engine;
}

function warnOfSecrets(out: Output, names: string[]): void {
  if (names.length === 0) return;
  const shown =
    names.slice(0, 5).map(plainText).join(', ') + (names.length > 5 ? `, and ${names.length - 5} more` : '');
  out.warn(
    `left out as secrets: ${shown}. Set what the app needs with \`kiln env set\`; to include a file all the same, put a line such as \`!${plainText(names[0]!)}\` into .kilnignore.`,
  );
}

function showSuccess(out: Output, deployment: DeploymentView, { operation, version }: Followed): void {
  const number = `version ${version.version_number}`;
  const total_ms = Object.values(version.stage_times).reduce((sum, ms) => sum + ms, 0);
  const time = operation.kind === 'publish' ? ` in ${formatDuration(total_ms)}` : '';
  if (operation.promoted === true) {
    out.line(`${out.paint('green', deployment.slug)} is live: ${out.paint('bold', deployment.public_url)}`);
    const reused = version.reused_release ? ', stored release reused' : '';
    out.line(out.paint('dim', `${number} (${version.id})${time}${reused}`));
  } else if (operation.superseded) {
    out.line(`${deployment.slug} ${number} is ready, but something newer is in force, so it is not live.`);
    out.line(`To make it live: kiln promote ${deployment.slug} ${version.version_number}`);
  } else {
    out.line(`${deployment.slug} ${number} is ready${time}, and production is unchanged.`);
    out.line(`To make it live: kiln promote ${deployment.slug} ${version.version_number}`);
  }
}

/** What happened, what was seen, and what to do next. */
export function showFailure(
  out: Output,
  failure: FailureView,
  of: { deployment: Pick<DeploymentView, 'slug' | 'active_version_id' | 'public_url'>; version: VersionView },
): void {
  const { deployment, version } = of;
  const note = (text: string) => out.note(plainText(text));
  if (failure.log_tail.length > 0) {
    out.note(
      out.paint(
        'dim',
        `Last lines of the log (all: kiln logs ${deployment.slug} --build ${version.id}):`,
        out.stderr,
      ),
    );
    for (const line of withoutRepeats(failure.log_tail)) note(`  ${line}`);
    out.note('');
  }
  out.note(
    `${out.paint('red', `Version ${version.version_number} failed`, out.stderr)} (${failure.stage}, ${failure.code}): ${plainText(failure.message)}`,
  );
  for (const line of seen(failure)) note(`  ${line}`);
  note(`Next: ${failure.next_step}`);
  if (failure.retryable) note(`The same might succeed: kiln retry ${version.id}`);
  out.note(
    deployment.active_version_id === null
      ? 'Nothing is live yet.'
      : `Production is unchanged: ${deployment.public_url}`,
  );
}

/** Lines that differ in numbers only, as an access log of health checks, as one and how many more. */
export function withoutRepeats(lines: readonly string[]): string[] {
  const shown: string[] = [];
  const same = (line: string) => line.replace(/\d+/g, '0');
  for (let at = 0; at < lines.length; ) {
    let next = at + 1;
    while (next < lines.length && same(lines[next]!) === same(lines[at]!)) next++;
    if (next - at < 4) shown.push(...lines.slice(at, next));
    else shown.push(lines[at]!, `… and ${next - at - 1} more like it`);
    at = next;
  }
  return shown;
}

function seen(failure: FailureView): string[] {
  const lines: string[] = [];
  if (failure.exit_code !== null) lines.push(`exit code ${failure.exit_code}`);
  if (failure.signal !== null) lines.push(`ended by ${failure.signal}`);
  if (failure.out_of_memory) lines.push('it ran out of memory');
  const probe = failure.last_probe;
  if (probe) {
    const answer = probe.status === null ? probe.error : `status ${probe.status}`;
    const to = probe.location === null ? '' : ` to ${probe.location}`;
    lines.push(`last probe: ${answer}${to} after ${formatDuration(probe.duration_ms)}`);
  }
  if (failure.listening.length > 0)
    lines.push(
      `it listens on ${failure.listening.map(({ address, port }) => `${address}:${port}`).join(', ')}`,
    );
  return lines;
}

/** A version in a few lines. */
export function showVersion(out: Output, version: VersionView): void {
  out.fields([
    ['id', version.id],
    ['number', version.version_number],
    ['state', version.superseded ? `${version.state}, superseded` : version.state],
    ['kind', version.kind],
    ['stage', version.stage],
    ['created', version.created_at],
    ['promoted', version.promoted_at],
    [
      'source',
      `${version.source_sha256} (${version.source_files} files, ${formatBytes(version.source_size_bytes)})`,
    ],
    ['artifact', version.artifact_sha256],
    ['reused', version.reused_release ? 'yes, nothing was built' : null],
    ['retry of', version.retry_of],
    ['command', version.runtime_command],
    ['port', version.runtime_port],
    ['health', version.health_check_path],
    ['build', version.build_id],
    [
      'stages',
      STAGES.filter((stage) => version.stage_times[stage] !== undefined)
        .map((stage) => `${stage} ${formatDuration(version.stage_times[stage]!)}`)
        .join(', '),
    ],
  ]);
}

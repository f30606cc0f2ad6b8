/** Dockerfile mode: BuildKit builds the image; what comes out is a tar that stage 3 takes in. */
import path from 'node:path';
import type { Plan } from '../domain/plan.ts';
import { recordReport } from './build-commands.ts';
import { imageBuildFailure } from './build-failure.ts';
import { failed, ok, type Result, type Run } from './run.ts';
import { SOURCE_DATE_EPOCH } from './source-date-epoch.ts';
import type { VersionEnv } from './version-env.ts';

export async function buildImage(
  run: Run,
  plan: Plan,
  dir: string,
  env: VersionEnv,
): Promise<Result<{ archive: string; layout: 'oci' | 'docker' }>> {
  const builder = run.image_builder!;
  const said = lastWords();
  run.log.note(`BuildKit by ${builder.name}`);
  const archive = path.join(run.workDir(run.deployment.id), 'image.tar');
  const secret = new Set(env.secret_names);
  const pick = (want: boolean) =>
    Object.fromEntries(Object.entries(env.vars).filter(([name]) => secret.has(name) === want));
  const { exit, archive: layout } = await builder.build({
    id: run.newId('mch'),
    deployment_id: run.deployment.id,
    context_dir: path.join(dir, plan.output_path === '.' ? plan.root : plan.output_path),
    dockerfile: plan.dockerfile?.file ?? 'Dockerfile',
    target: plan.dockerfile?.target ?? null,
    build_args: { ...plan.build_env, ...pick(false) },
    secrets: pick(true),
    source_date_epoch: SOURCE_DATE_EPOCH,
    limits: run.limits.build,
    network: run.network,
    cache_key: run.deployment.id,
    out_file: archive,
    on_output: (stream, chunk) => {
      run.log.write(stream, chunk);
      said.push(chunk);
    },
    signal: run.signal,
  });
  run.signal.throwIfAborted();
  await recordReport(run, [exit]);
  run.log.note(`${layout ? 'done' : 'failed'} in ${(exit.duration_ms / 1000).toFixed(1)} s`);
  if (layout !== null) return ok({ archive, layout });
  return failed(imageBuildFailure(exit, said.text(), run.limits.build, run.log.tail(50)));
}

/** The end of what was printed, for reading why it failed. */
function lastWords(): { push(chunk: Buffer): void; text(): string } {
  let kept: Buffer[] = [];
  let bytes = 0;
  return {
    push(chunk) {
      kept.push(Buffer.from(chunk));
      bytes += chunk.length;
      if (bytes < 2 * MAX_WORDS_BYTES) return;
      kept = [Buffer.concat(kept).subarray(-MAX_WORDS_BYTES)];
      bytes = MAX_WORDS_BYTES;
    },
    text: () => Buffer.concat(kept).toString('utf8'),
  };
}

const MAX_WORDS_BYTES = 256 * 1024;

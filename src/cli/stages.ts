/** The stages of a publish, shown as they end. */
import type { OperationView } from '../api/contract/operation.ts';
import type { VersionView } from '../api/contract/version.ts';
import type { Stage } from '../domain/failure.ts';
import type { Progress } from './progress.ts';

export const STAGES: readonly Stage[] = ['snapshot', 'plan', 'build', 'release', 'health', 'promotion'];

/** A finished operation, and its version as it then is. */
export interface Followed {
  operation: OperationView;
  version: VersionView;
}

/** Stages as they end, each once, with the time the engine measured. */
export class StageReport {
  readonly #progress: Progress;
  readonly #shown = new Set<string>();

  constructor(progress: Progress) {
    this.#progress = progress;
  }

  show(version: VersionView, operation: OperationView, finished: boolean): void {
    const failed = (operation.failure ?? version.failure)?.stage ?? null;
    const now = finished ? STAGES.length : STAGES.indexOf(operation.stage as Stage);
    for (const stage of STAGES.slice(0, Math.max(0, now))) {
      const reused = stage === 'build' && version.reused_release;
      const duration_ms = version.stage_times[stage] ?? (reused ? 0 : undefined);
      if (duration_ms === undefined || stage === failed || this.#shown.has(stage)) continue;
      this.#shown.add(stage);
      const note = reused ? 'an equal release is stored, so nothing was built' : undefined;
      this.#progress.end(stage, { ok: true, duration_ms, note });
    }
    if (!finished) {
      this.#progress.begin(operation.stage);
      if (operation.attempt > 1) this.#progress.detail(`attempt ${operation.attempt}`);
      else if (operation.stage === 'queued') this.#progress.detail('waiting for its turn');
    } else if (failed !== null && operation.state !== 'succeeded')
      this.#progress.end(failed, { ok: false, duration_ms: version.stage_times[failed] ?? null });
  }
}

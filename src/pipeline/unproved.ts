import { type Failure, failure } from '../domain/failure.ts';
import type { Instance } from '../domain/instance.ts';

/**
 * Instances that passed the gate are not there any more when it counts: thrown inside the transaction that needs them,
 * so that nothing of it is written (I2, I3).
 */
export class Unproved extends Error {
  readonly failure: Failure;

  constructor(of: {
    stage: 'health' | 'promotion';
    wanted: number;
    proved: number;
    rows: readonly Instance[];
  }) {
    super('fewer instances are healthy than were proved');
    this.name = 'Unproved';
    const ended = of.rows.find((row) => row.failure !== null)?.failure ?? null;
    this.failure = failure({
      stage: of.stage,
      code: 'HEALTH_UNSTABLE',
      message: `The app passed its health check, but only ${of.proved} of ${of.wanted} instances were still healthy when the version was to go live.${ended ? ` ${ended.message}` : ''}`,
      next_step:
        'Production is unchanged. Read the end of the instance log, make the app keep running after it has started, and publish again.',
      exit_code: ended?.exit_code ?? null,
      signal: ended?.signal ?? null,
      out_of_memory: ended?.out_of_memory ?? false,
      log_tail: ended?.log_tail ?? [],
    });
  }
}

import type { Config } from '../../src/config.ts';

/** The same engine, with waits that suit a test: what is timed in seconds for people is timed in tenths here. */
export function testConfig(config: Config): Config {
  return {
    ...config,
    strict_answers: true,
    health: { ...config.health, probe_interval_ms: 100, probe_timeout_ms: 2000 },
    timings: {
      ...config.timings,
      lease_ms: 4000,
      renew_ms: 500,
      reconcile_ms: 300,
      drain_ms: Math.min(config.timings.drain_ms, 5000),
      stop_grace_ms: 2000,
    },
  };
}

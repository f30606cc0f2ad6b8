/**
 * The build plan: pure data, decided before anything runs, stored with the version and part of what makes
 * a release reproducible (same source, same plan, same base: same digest).
 */
export type BuildMode = 'dockerfile' | 'auto' | 'static' | 'explicit';
export type ReleaseKind = 'static' | 'dynamic';

/** One thing found in the source, and what follows from it. `line` counts from 1. */
export interface Evidence {
  file: string;
  line: number | null;
  found: string;
  follows: string;
}

/** A tool the plan needs. `version` is what the app asks for (a range or exact), null when it does not say. */
export interface Toolchain {
  name: string;
  version: string | null;
  source: string | null;
}

/** Where each overridable field of the plan came from, highest precedence first. */
export type PlanSource = 'request' | 'environment' | 'kiln.toml' | 'kiln.json' | 'detected';

export interface Plan {
  mode: BuildMode;
  /** One sentence: why this mode. */
  mode_reason: string;
  ecosystem: string | null;
  framework: string | null;
  kind: ReleaseKind;
  /** Folder inside the source where the app is ('.' for the root); commands run there. */
  root: string;
  /** Shell commands, run in order with `sh -c` in `root`. */
  install: string[];
  build: string[];
  /** Shell command of a dynamic release; null for a static one. */
  start: string | null;
  /** The port the app is said to listen on; the instance always gets `PORT`. Null for static. */
  port: number | null;
  /** What is packed after the build, relative to the source root ('.' for everything). */
  output_path: string;
  /** Static only: answer unknown page paths with this file (single-page apps). */
  spa_fallback: string | null;
  /** Environment for the build and for the instance that the ecosystem needs (HOST, NODE_ENV, …). */
  build_env: Record<string, string>;
  run_env: Record<string, string>;
  /** Dockerfile mode, where it is not `Dockerfile` and the last stage: the file in the build context, and the stage. */
  dockerfile?: { file: string; target: string | null };
  health_check_path: string;
  /** How long a first 2xx may take. Milliseconds. */
  startup_timeout_ms: number;
  toolchains: Toolchain[];
  evidence: Evidence[];
  /** Rules that matched as well and lost, with the reason. */
  also_matched: { rule: string; lost_because: string }[];
  /** Where each overridden field came from. */
  sources: Partial<Record<string, PlanSource>>;
  /** What a person could do to change the plan. */
  would_change: string[];
  warnings: string[];
}

/** What a caller may ask for; every field optional. `kind` 'auto' means: decide from the source. */
export interface PlanOverrides {
  kind?: 'auto' | 'static' | 'dynamic';
  output_path?: string;
  root?: string;
  install_command?: string;
  build_command?: string;
  run_command?: string;
  port?: number;
  health_check_path?: string;
  entrypoint?: string;
  /** Dockerfile mode: name of the file in the build context, and the stage to build. */
  dockerfile?: string;
  target?: string;
  spa?: boolean;
}

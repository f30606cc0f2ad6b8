/**
 * What a detector is: one ecosystem's knowledge, as a pure function from an app's files to what it would do.
 * A new one is a file in this folder and a line in index.ts.
 */
import type { Evidence, ReleaseKind, Toolchain } from '../../domain/plan.ts';
import type { App } from './app.ts';

export interface Detection {
  /** Folder of the app inside the source, when it is another one than was looked at (a workspace member). */
  root: string | null;
  /** 'node', 'python', … */
  ecosystem: string;
  /** 'next', 'fastapi', …; null when it is plain. */
  framework: string | null;
  kind: ReleaseKind;
  install: string[];
  build: string[];
  /** How the server starts; null for a static site. */
  start: string | null;
  /** Shell text that makes installed programs and libraries findable; put before any command that is not ours. */
  setup: string | null;
  /** Set only when the app evidently does not follow `PORT`. */
  port: number | null;
  /** Static: the folder to serve, relative to the app. */
  output: string | null;
  spa_fallback: string | null;
  build_env: Record<string, string>;
  run_env: Record<string, string>;
  health_check_path: string | null;
  startup_timeout_ms: number | null;
  toolchains: Toolchain[];
  evidence: Evidence[];
  would_change: string[];
  warnings: string[];
}

/** The app is of this ecosystem, yet something is missing that only its author can say. */
export interface Stuck {
  stuck: string;
  next_step: string;
  evidence: Evidence[];
}

export interface Detector {
  name: string;
  /** Files that make it look closer, for the refusal when nothing matches. */
  looks_for: string[];
  /** Null: not this ecosystem. */
  detect(app: App): Detection | Stuck | null;
}

/** A detection with the fields that do not apply left empty. */
export function detection(of: Pick<Detection, 'ecosystem' | 'kind'> & Partial<Detection>): Detection {
  return {
    root: null,
    framework: null,
    install: [],
    build: [],
    start: null,
    setup: null,
    port: null,
    output: null,
    spa_fallback: null,
    build_env: {},
    run_env: {},
    health_check_path: null,
    startup_timeout_ms: null,
    toolchains: [],
    evidence: [],
    would_change: [],
    warnings: [],
    ...of,
  };
}

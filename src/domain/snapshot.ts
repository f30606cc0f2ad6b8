import type { Ownership } from './attribution.ts';

/** A stored state of a sandbox's workspace. It outlives the sandbox; new sandboxes are made from it. */
export interface SandboxSnapshot extends Ownership {
  id: string;
  sandbox_id: string;
  comment: string | null;
  /** Never expires. */
  keep: boolean;
  retention_seconds: number | null;
  expires_at: Date | null;
  /** Of the uncompressed canonical tar. */
  sha256: string;
  object_key: string;
  size_bytes: number;
  files: number;
  /** Top-most paths that hold secrets and were therefore left out (I10). */
  secrets_left_out: string[];
  last_used_at: Date | null;
  deleted_at: Date | null;
  created_at: Date;
  updated_at: Date;
}

import type { Ownership } from './attribution.ts';

/** A mutable workspace. It keeps running and stays editable during a publish, and never serves production. */
export type SandboxState = 'provisioning' | 'running' | 'paused' | 'destroyed' | 'error';

export interface Sandbox extends Ownership {
  id: string;
  name: string;
  slug: string;
  state: SandboxState;
  template_id: string;
  size: string;
  tags: string[];
  metadata: Record<string, unknown>;
  timeout_sec: number | null;
  idle_timeout_sec: number | null;
  always_on: boolean;
  persistent: boolean;
  created_at: Date;
  updated_at: Date;
  destroyed_at: Date | null;
}

/** An archive is unpacked into a folder of this name beside the workspace; one found at start is half an upload. */
export const UPLOAD_PREFIX = 'upload-';

const NEXT: Record<SandboxState, readonly SandboxState[]> = {
  provisioning: ['running', 'error', 'destroyed'],
  running: ['paused', 'error', 'destroyed'],
  paused: ['running', 'error', 'destroyed'],
  error: ['destroyed'],
  destroyed: [],
};

export function sandboxMayBecome(from: SandboxState, to: SandboxState): boolean {
  return NEXT[from].includes(to);
}

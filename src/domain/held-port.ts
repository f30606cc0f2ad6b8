/**
 * A port that an app insists on, while something else on this machine listens there. Only where instances share the
 * host's network (bubblewrap, process): two versions of such an app can run side by side only when one of them is moved.
 */
import type { InstanceRole } from './instance.ts';

export interface HeldPort {
  port: number;
  /** Who holds it, in words: 'version 1 of shop, which is live'. */
  by: string;
}

const ROLES: Record<InstanceRole, string> = {
  gating: 'which is being proved',
  live: 'which is live',
  warm: 'which is kept running for a rollback',
  retired: 'which is being stopped',
};

/** An instance of this install that is entered with that port. */
export interface PortHolder {
  version_id: string;
  version_number: number;
  deployment_slug: string;
  tenant_id: string;
  role: InstanceRole;
}

/** In words for `asker`; another tenant's names are not told. */
export function holderInWords(
  holder: PortHolder | undefined,
  asker: { version_id: string; tenant_id: string },
): string {
  if (holder === undefined) return 'another program of this machine';
  if (holder.tenant_id !== asker.tenant_id) return 'a deployment of another tenant';
  if (holder.version_id === asker.version_id) return 'another instance of this version';
  return `version ${holder.version_number} of ${holder.deployment_slug}, ${ROLES[holder.role]}`;
}

export const isHeld = ({ port, by }: HeldPort): string => `port ${port} is held by ${by}`;

/** Beforehand, when nobody knows yet whether the app could use another. */
export const heldPortWarning = (held: HeldPort): string =>
  `${isHeld(held)}. Node, Python and Ruby code that listens there is brought to the port that its instance gets; an app in another language that listens on no other port cannot start beside it. ${HELD_PORT_NEXT_STEP}`;

export const HELD_PORT_NEXT_STEP =
  'Read the port from the environment variable PORT, so that two versions can run side by side; or start Kiln with --isolation docker, where every instance has its own network.';

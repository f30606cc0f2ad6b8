import type Docker from 'dockerode';
import { dockerMessage, LABEL } from './engine.ts';

/**
 * A bridge network per deployment: its instances reach each other and the world, and Docker's own rules keep every
 * other bridge out. Docker's default pools hold about 30 networks, so small ones are cut from a range of our own.
 */
export const INSTANCE_RANGE = '10.213.0.0/16';
/** 13 instances: live, warm and gating ones of a deployment are a handful. */
const PREFIX = 28;
const TRIES = 32;

export async function ensureNetwork(
  docker: Docker,
  o: { data_key: string; deployment_id: string; range: string },
): Promise<string> {
  const name = `kiln-${o.data_key}-${o.deployment_id}`;
  const known = await findNetwork(docker, name);
  if (known !== null) return known;
  let refusal = '';
  const tried = new Set<string>();
  for (let n = 0; n < TRIES; n++) {
    const taken = (await docker.listNetworks()).flatMap((one) =>
      (one.IPAM?.Config ?? []).map((config) => config.Subnet ?? ''),
    );
    const subnet = freeSubnet(o.range, [...taken, ...tried]);
    if (subnet === null) throw new Error(`all networks of ${o.range} are in use`);
    tried.add(subnet);
    try {
      const made = await docker.createNetwork({
        ...{ Name: name, CheckDuplicate: true, Driver: 'bridge', Attachable: false },
        Labels: { [LABEL.data]: o.data_key, [LABEL.id]: o.deployment_id },
        IPAM: { Driver: 'default', Config: [{ Subnet: subnet }] },
      });
      return made.id;
    } catch (error) {
      refusal = dockerMessage(error);
      // Somebody else was faster: with the same network, or with another in this place.
      const other = await findNetwork(docker, name);
      if (other !== null) return other;
      if (!/overlap|in use|exists/i.test(refusal)) break;
    }
  }
  throw new Error(`no network could be made for ${o.deployment_id}: ${refusal}`);
}

async function findNetwork(docker: Docker, name: string): Promise<string | null> {
  const found = await docker.listNetworks({ filters: { name: [name] } });
  return found.find((one) => one.Name === name)?.Id ?? null;
}

/** Removes networks of a data folder that no container is in. */
export async function removeIdleNetworks(docker: Docker, data_key: string): Promise<void> {
  const found = await docker.listNetworks({ filters: { label: [`${LABEL.data}=${data_key}`] } });
  // A network in use is refused by the daemon, which is the only one to know.
  for (const one of found)
    await docker
      .getNetwork(one.Id)
      .remove()
      .catch(() => undefined);
}

/** The first small subnet of a range that overlaps none of those taken. */
export function freeSubnet(range: string, taken: readonly string[]): string | null {
  const all = parse(range);
  const others = taken.map(parse).filter((one) => one !== null);
  if (all === null) throw new Error(`${JSON.stringify(range)} is no IPv4 range such as ${INSTANCE_RANGE}`);
  const size = 2 ** (32 - PREFIX);
  for (let start = all.start; start + size - 1 <= all.end; start += size)
    if (!others.some((one) => one.start <= start + size - 1 && start <= one.end))
      return `${[24, 16, 8, 0].map((shift) => Math.floor(start / 2 ** shift) % 256).join('.')}/${PREFIX}`;
  return null;
}

function parse(range: string): { start: number; end: number } | null {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(range);
  if (match === null) return null;
  const [a, b, c, d, bits] = match.slice(1).map(Number) as [number, number, number, number, number];
  if ([a, b, c, d].some((part) => part > 255) || bits > 32) return null;
  const size = 2 ** (32 - bits);
  const start = Math.floor((((a * 256 + b) * 256 + c) * 256 + d) / size) * size;
  return { start, end: start + size - 1 };
}

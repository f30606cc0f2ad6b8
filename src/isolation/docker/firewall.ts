import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { findProgram } from '../program.ts';

const run = promisify(execFile);

/** Where clouds answer with the credentials of the machine they run. */
const LINK_LOCAL = '169.254.0.0/16';

export function linkLocalRule(range: string): string[] {
  const reject = ['-j', 'REJECT', '--reject-with', 'icmp-port-unreachable'];
  return ['-s', range, '-d', LINK_LOCAL, '-m', 'comment', '--comment', 'kiln', ...reject];
}

/**
 * Keeps instances from the metadata address: one rule for all their networks, in the chain that Docker leaves to
 * others (DOCKER-USER) and keeps through its restarts. Null when it is in force, else why it is not: an engine that
 * is not root cannot change the firewall.
 */
export async function closeLinkLocal(range: string): Promise<string | null> {
  const iptables = findProgram('iptables');
  if (iptables === null) return 'iptables is not installed';
  const rule = linkLocalRule(range);
  const ask = (action: string) =>
    run(iptables, ['-w', '5', action, 'DOCKER-USER', ...rule], { timeout: 10_000 });
  try {
    await ask('-C').catch(() => ask('-I'));
    return null;
  } catch (error) {
    return String((error as { stderr?: string }).stderr || error)
      .trim()
      .split('\n')[0]!;
  }
}

/** What a publish has to say besides its outcome: the plan's warnings, and those that the engine put into the build log. */
import type { VersionView } from '../api/contract/version.ts';
import { WARNING } from '../domain/warning.ts';
import type { Client } from './client.ts';
import { type Output, plainText } from './output.ts';

/** The engine's own come with the release, near the end of the log. */
const LAST_LINES = 200;
const MAX_SHOWN = 10;

/** The log is a side channel: without it there is less to say. */
export async function warningsOf(client: Client, version: VersionView): Promise<string[]> {
  const planned = version.plan?.warnings ?? [];
  const params = { id: version.deployment_id, build_id: version.build_id };
  try {
    const { data } = await client.get('/deployments/{id}/builds/{build_id}/logs', {
      params,
      query: { lines: LAST_LINES },
    });
    const own = data.lines.filter(({ stream, line }) => stream === 'kiln' && line.startsWith(WARNING));
    // A publish that was taken up again, after an engine died, says its own twice.
    return [...new Set([...planned, ...own.map(({ line }) => line.slice(WARNING.length))])];
  } catch {
    return planned;
  }
}

export function showWarnings(out: Output, warnings: string[]): void {
  for (const warning of warnings.slice(0, MAX_SHOWN)) out.warn(plainText(warning));
  if (warnings.length > MAX_SHOWN) out.warn(`${warnings.length - MAX_SHOWN} more are in the build log.`);
}

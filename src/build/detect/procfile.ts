/** Procfile: its `web:` line says how a server starts, whatever the ecosystem found out. */
import type { Evidence } from '../../domain/plan.ts';
import type { App } from './app.ts';
import { type Detector, detection } from './detector.ts';
import { portInCommand } from './port.ts';

/** What to do about a start line of a Procfile. */
export const ANOTHER_START = 'Another `web:` line in the Procfile, or run_command, starts something else.';

/** The command of the `web:` line. */
export function webProcess(app: App): { command: string; evidence: Evidence } | null {
  const hit = app.search(['Procfile'], /^web\s*:\s*(\S.{0,999})$/);
  if (!hit) return null;
  const command = hit.match[1]!.trim();
  return {
    command,
    evidence: {
      ...app.evidence(
        'Procfile',
        `web: ${command.slice(0, 120)}`,
        'this starts the server, whatever else would',
      ),
      line: hit.line,
    },
  };
}

/** Other lines are for hosts that run several processes of an app; here each would be missed in silence. */
export function unusedProcesses(app: App): string[] {
  const release = app.search(['Procfile'], /^release\s*:\s*(\S.{0,999})$/);
  const other = app.search(['Procfile'], /^(?!web\s*:|release\s*:|#)([A-Za-z][\w-]{0,60})\s*:\s*\S/);
  return [
    ...(release
      ? [
          `The Procfile's release line is not run (${release.match[1]!.trim().slice(0, 120)}): put that command in front of the web line's, or run it yourself.`,
        ]
      : []),
    ...(other
      ? [
          `Of the Procfile only the web line is started; ${other.match[1]} is not. Publish it as an app of its own if it answers health checks, or start it from the web line's command.`,
        ]
      : []),
  ];
}

/** When no other detector knows the app: the line as it is, with nothing to install. */
export const procfile: Detector = {
  name: 'procfile',
  looks_for: ['Procfile'],
  detect: (app) => {
    const web = webProcess(app);
    if (!web && !app.exists('Procfile')) return null;
    if (!web) {
      return {
        stuck: 'Procfile is there, but it has no `web:` line: nothing in it answers requests.',
        next_step: 'Add a line such as `web: ./serve --port $PORT`, or give run_command.',
        evidence: [app.evidence('Procfile', 'Procfile', 'no web process')],
      };
    }
    return detection({
      ecosystem: 'procfile',
      kind: 'dynamic',
      start: web.command,
      port: portInCommand(web.command),
      evidence: [web.evidence],
      would_change: [ANOTHER_START],
      warnings: unusedProcesses(app),
    });
  },
};

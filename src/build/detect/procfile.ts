/** Procfile: its `web:` line says how a server starts, whatever the ecosystem found out. */
import type { Evidence } from '../../domain/plan.ts';
import type { App } from './app.ts';
import { type Detector, detection } from './detector.ts';

/** The command of the `web:` line. */
export function webProcess(app: App): { command: string; evidence: Evidence } | null {
  const hit = app.search(['Procfile'], /^web\s*:\s*(\S.{0,999})$/);
  if (!hit) return null;
  const command = hit.match[1]!.trim();
  return {
    command,
    evidence: {
      ...app.evidence('Procfile', `web: ${command.slice(0, 120)}`, 'this starts the server'),
      line: hit.line,
    },
  };
}

/** When no other detector knows the app: the line as it is, with nothing to install. */
export const procfile: Detector = {
  name: 'procfile',
  looks_for: ['Procfile'],
  detect: (app) => {
    const web = webProcess(app);
    return (
      web &&
      detection({ ecosystem: 'procfile', kind: 'dynamic', start: web.command, evidence: [web.evidence] })
    );
  },
};

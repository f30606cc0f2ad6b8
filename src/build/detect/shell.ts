/** A shell script that is the server. */

import { quote } from '../quote.ts';
import type { Detector } from './detector.ts';
import { detection } from './detector.ts';

export const shell: Detector = {
  name: 'shell',
  looks_for: ['start.sh', 'run.sh'],
  detect: (app) => {
    const asked = app.entrypoint?.endsWith('.sh') ? app.first(app.entrypoint) : null;
    const file = asked ?? app.first('start.sh', 'run.sh', 'server.sh');
    if (!file) return null;
    const bash = app.search([file], /^#!.*\bbash\b/)?.line === 1;
    return detection({
      ecosystem: 'shell',
      kind: 'dynamic',
      build: app.exists('build.sh') ? [`${bash ? 'bash' : 'sh'} build.sh`] : [],
      start: `exec ${bash ? 'bash' : 'sh'} ${quote(file)}`,
      would_change: [
        'run_command or entrypoint starts something else; a build.sh beside it would run first.',
      ],
      evidence: [app.evidence(file, file, 'this script is run; it has to listen on PORT')],
    });
  },
};

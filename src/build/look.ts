/** Where in the source the app is: in the folder that was asked for, in the root, or in the only folder that holds one. */
import type { Evidence } from '../domain/plan.ts';
import { type App, openApp } from './detect/app.ts';
import { type Detected, detectApp } from './detect/index.ts';
import { MANIFESTS } from './detect/static.ts';
import type { SourceFiles } from './files.ts';
import type { Settings } from './settings.ts';

/** The app in `root`; when nothing is there and no root is asked for, the only app one folder down. */
export function lookForApp(files: SourceFiles, settings: Settings): { app: App; detected: Detected } {
  const entrypoint = settings.entrypoint ?? null;
  const app = openApp(files, settings.root ?? '.', entrypoint);
  const detected = detectApp(app);
  if (settings.root || detected.detection || detected.stuck.length > 0 || detected.problems.length > 0)
    return { app, detected };
  const below = app
    .list()
    .filter(
      ({ name, type }) =>
        type === 'dir' && !/^(?:\.|node_modules$|vendor$|docs?$|tests?$|examples?$)/.test(name),
    )
    .slice(0, 50)
    .map(({ name }) => openApp(files, name, entrypoint))
    .filter((one) => MANIFESTS.some((name) => one.exists(name)));
  const apps = below
    .map((one) => ({ app: one, detected: detectApp(one) }))
    .filter((one) => one.detected.detection);
  if (apps.length === 1) {
    const only = apps[0]!;
    const why: Evidence = {
      file: only.app.root,
      line: null,
      found: 'the only folder with an app in it',
      follows: `the app is ${only.app.root}`,
    };
    only.detected.detection!.evidence.unshift(why);
    return only;
  }
  const dirs = apps.map((one) => one.app.root);
  if (dirs.length > 1) {
    const next_step = `Say which one to publish, for example root = "${dirs[0]}".`;
    detected.stuck.push({
      rule: 'folders',
      stuck: `Several folders hold an app: ${dirs.join(', ')}.`,
      next_step,
      evidence: [],
    });
  }
  return { app, detected };
}

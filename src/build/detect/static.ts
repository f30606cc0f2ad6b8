/**
 * The static packager: files that are a site as they are. Never when a manifest or server code says that there is
 * something to build or to run: then serving the files would publish the source.
 */
import type { App } from './app.ts';
import { type Detection, type Detector, detection } from './detector.ts';
import { wantsStartPage } from './host-rules.ts';

/** Files of any ecosystem that mean: this is source. */
export const MANIFESTS =
  `package.json deno.json deno.jsonc requirements.txt pyproject.toml Pipfile setup.py manage.py go.mod go.work
  mix.exs Gemfile config.ru composer.json pom.xml build.gradle build.gradle.kts Cargo.toml Procfile`.split(
    /\s+/,
  );
const SERVER_CODE = ['py', 'rb', 'php', 'go', 'ex', 'exs', 'java', 'kt', 'rs', 'cs', 'pl', 'lua'];
const FOLDERS = ['public', 'dist', 'build', 'site', '_site', 'www', 'out'];

/** The manifest or server file that forbids serving a folder's files; null when there is none. */
export function sourceIn(app: App, dir = '.'): string | null {
  const names = app
    .list(dir)
    .filter(({ type }) => type === 'file')
    .map(({ name }) => name);
  return (
    names.find((name) => MANIFESTS.includes(name)) ??
    names.find((name) => SERVER_CODE.includes(name.slice(name.lastIndexOf('.') + 1)) && name.includes('.')) ??
    null
  );
}

export const hasPage = (app: App, dir: string): boolean =>
  app.list(dir).some(({ name, type }) => type === 'file' && /\.html?$/i.test(name));

/** The folder that looks like a site: the app's own, or a usual one in it. */
export const siteFolder = (app: App): string | null =>
  ['.', ...FOLDERS].find((dir) => app.exists(`${dir}/index.html`)) ??
  ['.', ...FOLDERS].find((dir) => app.exists(`${dir}/index.htm`)) ??
  null;

/** Pages where nothing looks for them: a site one folder down, as archives unpack, or one without a start page. */
export function pagesNear(app: App): { found: string; next_step: string } | null {
  const folders = app
    .list('.')
    .filter(({ name, type }) => type === 'dir' && !name.startsWith('.') && name !== 'node_modules')
    .map(({ name }) => name);
  const folder = folders.find((name) => app.exists(`${name}/index.html`));
  if (folder !== undefined)
    return {
      found: `${folder}/index.html looks like a site`,
      next_step: `Give output_path = "${folder}" to serve that folder as it is, or publish that folder itself.`,
    };
  const pages = app.list('.').filter(({ name, type }) => type === 'file' && /\.html?$/i.test(name));
  if (pages.length === 0 || sourceIn(app)) return null;
  const names = pages.slice(0, 3).map(({ name }) => name);
  return {
    found: `there are pages (${names.join(', ')}), and none is called index.html`,
    next_step: 'Rename the start page to index.html, so that the address of the site itself shows it.',
  };
}

/** What is worth saying about a folder whose own address has no page. */
function homeNotes(app: App, dir: string): string[] {
  if (app.exists(`${dir}/index.html`)) return [];
  const index = dir === '.' ? 'index.html' : `${dir}/index.html`;
  if (app.exists(`${dir}/index.htm`))
    return [
      `The start page is called index.htm: rename it to index.html, or the address of the site itself answers 404.`,
    ];
  return [`${index} does not exist: the address of the site itself answers 404.`];
}

/** A site in `dir`, as it is. */
export function packFolder(app: App, dir: string, evidence: Detection['evidence'], spa: boolean): Detection {
  return detection({
    ecosystem: 'static',
    kind: 'static',
    output: dir,
    spa_fallback: spa ? 'index.html' : null,
    evidence,
    would_change: [
      'output_path = "<folder>" serves another folder; build_command makes it first.',
      ...(spa ? [] : ['spa = true answers unknown pages with index.html (single-page apps).']),
      'run_command makes it a server.',
    ],
    warnings: homeNotes(app, dir),
  });
}

export const staticSite: Detector = {
  name: 'static',
  looks_for: ['index.html', 'public/index.html', 'Staticfile'],
  detect: (app) => {
    const listed = app.exists('Staticfile') ? app.yaml('Staticfile') : null;
    if (app.exists('Staticfile')) {
      const folder = typeof listed?.root === 'string' ? listed.root.replace(/^\.?\/+|\/+$/g, '') || '.' : '.';
      const spa = listed?.pushstate === 'enabled' || listed?.pushstate === true;
      return packFolder(
        app,
        folder,
        [app.evidence('Staticfile', `root: ${folder}`, 'this folder is served', /^root/)],
        spa,
      );
    }
    const folder = siteFolder(app);
    if (!folder) return null;
    const source = sourceIn(app);
    const name = app.exists(`${folder}/index.html`) ? 'index.html' : 'index.htm';
    const page = folder === '.' ? name : `${folder}/${name}`;
    if (source) {
      return {
        stuck: `${page} looks like a site, but ${source} beside it looks like source that must not be served.`,
        next_step:
          'Give output_path for the folder to serve, build_command for what makes it, or run_command for a server.',
        evidence: [app.evidence(source, source, 'not served as a file')],
      };
    }
    return packFolder(
      app,
      folder,
      [
        app.evidence(
          page,
          page,
          folder === '.' ? 'the files are a site as they are' : `the folder ${folder} is a site as it is`,
        ),
      ],
      wantsStartPage(app, folder),
    );
  },
};

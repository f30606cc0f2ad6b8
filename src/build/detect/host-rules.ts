/** `_redirects` and `_headers`, which some hosts of sites read. Here they are files like others, and that has to be said. */
import type { App } from './app.ts';

/** `/*  /index.html  200`: unknown pages are the start page's. */
const TO_START = /^\/\*\s+\/(?:index\.html)?\s+200!?$/;
/** Where a build takes them from. */
const SOURCES = ['public', 'static'];

function rulesIn(app: App, file: string): string[] {
  const lines = (app.exists(file) ? (app.read(file) ?? '') : '').split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '' && !line.startsWith('#'));
}

/** The author wants unknown pages answered with the start page. */
export const wantsStartPage = (app: App, folder: string): boolean =>
  rulesIn(app, `${folder}/_redirects`).some((rule) => TO_START.test(rule));

/** What a site loses here; `spa`: unknown pages are answered with the start page already. */
export function hostRuleNotes(app: App, output: string, spa: boolean): string[] {
  const in_folder = (name: string) =>
    [...new Set([output, ...SOURCES])]
      .map((folder) => (folder === '.' ? name : `${folder}/${name}`))
      .filter((file) => app.exists(file));
  const redirects = in_folder('_redirects').flatMap((file) => {
    const rules = rulesIn(app, file);
    const others = rules.filter((rule) => !TO_START.test(rule)).length;
    return [
      ...(others > 0
        ? [`${file} is a file like others here: of its rules ${others} will not be applied.`]
        : []),
      ...(others < rules.length && !spa
        ? [`${file} sends unknown pages to the start page; spa = true does that here.`]
        : []),
    ];
  });
  const headers = in_folder('_headers').map(
    (file) => `${file} is a file like others here: it sets no headers.`,
  );
  return [...redirects, ...headers];
}

/**
 * What is worth knowing about a release that was made all the same. Each is a line of the build log that begins with
 * WARNING; the CLI repeats those lines when the publish has ended.
 */
import { text } from 'node:stream/consumers';
import type { Plan } from '../domain/plan.ts';
import type { Release } from '../domain/release.ts';
import { WARNING } from '../domain/warning.ts';
import { misplacedBase } from '../release/base-path.ts';
import { openStaticSite } from '../release/static-site.ts';
import type { Run } from './run.ts';

const MAX_PAGES = 5;
const MAX_PAGE_BYTES = 512 * 1024;

export async function warnOfRelease(
  run: Run,
  of: Pick<Release, 'kind' | 'object_key' | 'manifest'> & { skipped?: string[] },
  plan: Plan,
): Promise<void> {
  for (const link of of.skipped ?? []) run.log.note(`${WARNING}left out of the release: ${link}`);
  if (of.kind !== 'static') return;
  for (const line of [
    ...(await entryWarnings(run, of.manifest, plan)),
    ...(await baseWarnings(run, of, plan)),
  ])
    run.log.note(`${WARNING}${line}`);
}

/** Files that somebody wrote as they are seldom name a base; a build puts it into every page. */
async function baseWarnings(
  run: Run,
  { object_key, manifest: { entrypoint, index_key } }: Pick<Release, 'object_key' | 'manifest'>,
  { build, output_path }: Plan,
): Promise<string[]> {
  if (entrypoint == null || index_key == null || (build.length === 0 && output_path === '.')) return [];
  const site = await openStaticSite(run.objects, object_key, index_key);
  try {
    const page = site.lookup(entrypoint);
    if (page === undefined || page.size > MAX_PAGE_BYTES) return [];
    const html = (await site.readAll(page)).toString('utf8');
    const found = misplacedBase(html, (path) => site.lookup(path) !== undefined);
    if (found === null) return [];
    return [
      `${entrypoint} asks for ${found.asked}, which is at ${found.asked.slice(found.base.length)}: the site was built to live below ${found.base}, and here it lives at /, so it stays blank. Build it for / (the setting is called base, basePath, baseUrl, homepage, publicPath or base-href).`,
    ];
  } finally {
    await site.close();
  }
}

async function entryWarnings(run: Run, manifest: Release['manifest'], plan: Plan): Promise<string[]> {
  const { spa_fallback, output_path } = plan;
  const has_index = manifest.entrypoint != null;
  if (has_index && (spa_fallback === null || spa_fallback === manifest.entrypoint)) return [];
  const names = await packedNames(run, manifest);
  const answers = spa_fallback !== null && names.includes(spa_fallback);
  const place = output_path === '.' ? 'the folder that is served' : output_path;
  if (has_index)
    return answers
      ? []
      : [`unknown pages are to be answered with ${spa_fallback}, but ${place} has no such file.`];
  if (answers) return [];
  const pages = names.filter((name) => /\.html?$/i.test(name)).slice(0, MAX_PAGES);
  const found =
    pages.length === 0 ? 'It holds no HTML page at all.' : `Pages that are there: ${pages.join(', ')}.`;
  return [
    `the address of the site itself answers 404: ${place} has no index.html. ${found} Name the folder with the pages with output_path.`,
  ];
}

async function packedNames(run: Run, { index_key }: Release['manifest']): Promise<string[]> {
  if (index_key == null) return [];
  const index = JSON.parse(await text(await run.objects.get(index_key))) as { files: object };
  return Object.keys(index.files);
}

/** Which file of a static release answers a path, and how long it may be cached. Pure. */
import { lookup as mimeOf } from 'mrmime';
import type { StaticFile, StaticSite } from '../release/static-site.ts';
import { decodePath } from './target.ts';

export type StaticAnswer =
  | { kind: 'file'; status: 200 | 404; file: StaticFile; cache_control: string; varies: boolean }
  | { kind: 'redirect'; location: string }
  | { kind: 'missing' }
  | { kind: 'bad_path' };

export interface StaticRequest {
  /** Path and query as sent, beginning with a slash. */
  path: string;
  accepts_html: boolean;
  spa_fallback: string | null;
}

/** Asks the origin every time, which costs a 304 without a body. */
const REVALIDATE = 'no-cache';
const IMMUTABLE = 'public, max-age=31536000, immutable';
const NO_STORE = 'no-store';

/**
 * In this order: the file itself; `index.html` of a folder; `<path>.html`; a redirect to the folder's slash form
 * (or, the other way round, from `/about/` to the page `/about`); then for page-like paths the single-page app's
 * entry, or `404.html`. An asset that is missing is never answered with a page: a browser would take the HTML for
 * the script it asked for, and a cache would keep it.
 */
export function resolveStatic(site: Pick<StaticSite, 'lookup'>, request: StaticRequest): StaticAnswer {
  const path = decodePath(request.path);
  if (path === null) return { kind: 'bad_path' };
  if (isHidden(path)) return { kind: 'missing' };
  const page = findPage(site, path, request.path);
  if (page !== null) return page;
  return isAssetLike(path) ? { kind: 'missing' } : notFound(site, request);
}

function findPage(site: Pick<StaticSite, 'lookup'>, path: string, raw: string): StaticAnswer | null {
  if (path === '' || path.endsWith('/')) {
    const index = site.lookup(`${path}index.html`);
    if (index !== undefined) return found(index);
    const page = path === '' ? undefined : site.lookup(`${path.slice(0, -1)}.html`);
    return page === undefined ? null : { kind: 'redirect', location: moveSlash(raw, false) };
  }
  const file = site.lookup(path) ?? site.lookup(`${path}.html`);
  if (file !== undefined) return found(file);
  const index = site.lookup(`${path}/index.html`);
  return index === undefined ? null : { kind: 'redirect', location: moveSlash(raw, true) };
}

function notFound(site: Pick<StaticSite, 'lookup'>, request: StaticRequest): StaticAnswer {
  const { spa_fallback, accepts_html } = request;
  const entry = spa_fallback === null ? undefined : site.lookup(spa_fallback.replace(/^\/+/, ''));
  if (entry !== undefined) {
    if (!accepts_html) return { kind: 'missing' };
    return { kind: 'file', status: 200, file: entry, cache_control: REVALIDATE, varies: true };
  }
  const page = site.lookup('404.html');
  if (page === undefined) return { kind: 'missing' };
  return { kind: 'file', status: 404, file: page, cache_control: NO_STORE, varies: false };
}

function found(file: StaticFile): StaticAnswer {
  const cache_control = isHashed(file.path) ? IMMUTABLE : REVALIDATE;
  return { kind: 'file', status: 200, file, cache_control, varies: false };
}

/**
 * The raw path, which names an existing page, with or without its last slash; the query stays. The path is one
 * that was found in the index, so it cannot begin with two slashes and lead to another host.
 */
function moveSlash(raw: string, add: boolean): string {
  const end = raw.search(/[?#]/);
  const path = end === -1 ? raw : raw.slice(0, end);
  const query = end === -1 ? '' : raw.slice(end).split('#', 1)[0]!;
  return (add ? `${path}/` : path.replace(/(?:\/|%2f)$/i, '')) + query;
}

/** Dot files are never served, except what RFC 8615 puts under /.well-known/. */
function isHidden(path: string): boolean {
  const visible = path.startsWith('.well-known/') ? path.slice('.well-known/'.length) : path;
  return visible.startsWith('.') || visible.includes('/.');
}

const ASSET_FOLDERS = /^(?:assets|static|_next|_astro|_nuxt|_app|build\/assets|\.well-known)\//;
const EXTENSION = /\.([a-z0-9]{1,10})$/i;

/** Does the path name a file, not a page? `/v1.2` is a page: an extension has a letter. */
function isAssetLike(path: string): boolean {
  if (ASSET_FOLDERS.test(path)) return true;
  const extension = EXTENSION.exec(path)?.[1]?.toLowerCase();
  return extension !== undefined && /[a-z]/.test(extension) && !/^html?$/.test(extension);
}

/** Folders whose files are named by their content, whatever they are called. */
const HASHED_FOLDERS = /^(?:_next\/static\/|_astro\/|_nuxt\/|_app\/immutable\/)/;
const BUNDLE_FOLDERS = /^(?:assets|static|build\/assets|js|css)\//;
/** `app.3f2a1b9c.js`, `app-3f2a1b9c.chunk.js`; and `app-BxQ2_kZ9.js` as Vite writes it (8 of base64url). */
const HEX_NAME = /[.-]([0-9a-f]{8,64})\.(?:[a-z0-9]+\.)?[a-z0-9]+$/;
const BASE64URL_NAME = /[.-]([A-Za-z0-9_-]{8})\.(?:[a-z0-9]+\.)?[a-z0-9]+$/;
const WORD_AND_NUMBER = /^(?:[A-Z][a-z]+\d+|\d+[A-Z][a-z]+)$/;

/**
 * Is the name made from the content, so that it may be cached for good? Taking a hash for a word costs a
 * revalidation, taking a word for a hash would keep an old file for a year: so a word-like or number-like part
 * (`my-document.pdf`, `photo-20240101.jpg`, `flyer-Summer24.pdf`) is not believed.
 */
function isHashed(path: string): boolean {
  if (HASHED_FOLDERS.test(path)) return true;
  if (!BUNDLE_FOLDERS.test(path)) return false;
  const hex = HEX_NAME.exec(path)?.[1];
  if (hex !== undefined && /\d/.test(hex) && /[a-f]/.test(hex)) return true;
  const base64 = BASE64URL_NAME.exec(path)?.[1];
  if (base64 === undefined || WORD_AND_NUMBER.test(base64)) return false;
  return /\d/.test(base64) && /[a-z]/.test(base64) && /[A-Z]/.test(base64);
}

/** The content type of a file by its extension; text is UTF-8. */
export function contentType(path: string): string {
  const type = mimeOf(path);
  if (type === undefined) {
    return path.endsWith('/apple-app-site-association') ? 'application/json' : 'application/octet-stream';
  }
  const is_text = type.startsWith('text/') || /[/+](?:json|xml|javascript)$/.test(type);
  return is_text ? `${type}; charset=utf-8` : type;
}

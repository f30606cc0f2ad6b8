/**
 * A site that was built to live below a path (`base: '/portal/'`, GitHub Pages' `homepage`) asks for its scripts and styles
 * there. Served at `/` it is a blank page, and with a fallback for unknown pages not even a 404 says so. Found by what the
 * start page asks for and where those files are, so that it holds for every framework.
 */

export interface Misplaced {
  /** Where the site believes it lives: '/portal'. */
  base: string;
  /** A file that its start page asks for, and does not get. */
  asked: string;
}

const MAX_REFERENCES = 50;
const BASE = /<base\b[^>]{0,500}?\bhref\s*=\s*["']?(\/[^"'\s>]{0,500})/i;
const REFERENCE =
  /<(?:script|link)\b[^>]{0,1000}?\b(?:src|href)\s*=\s*["']?([^"'\s>]{1,500}?\.(?:m?js|css))(?:\?[^"'\s>]*)?["'\s>]/gi;

/** Null when a file that the page asks for is there, or when none of them would be below another base. */
export function misplacedBase(html: string, has: (path: string) => boolean): Misplaced | null {
  const site = new URL('http://site/');
  const from = new URL(BASE.exec(html)?.[1] ?? '/', site).href;
  let found: Misplaced | null = null;
  for (const [, reference] of [...html.matchAll(REFERENCE)].slice(0, MAX_REFERENCES)) {
    if (!URL.canParse(reference!, from)) continue;
    const asked = new URL(reference!, from);
    if (asked.origin !== site.origin) continue;
    const parts = asked.pathname.slice(1).split('/').map(decoded);
    if (has(parts.join('/'))) return null;
    const cut = parts.findIndex((_, at) => at > 0 && has(parts.slice(at).join('/')));
    if (cut > 0) found ??= { base: `/${parts.slice(0, cut).join('/')}`, asked: `/${parts.join('/')}` };
  }
  return found;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** A path made for health checks that the app's own code answers: better than `/`, which an API may not have. */
import type { Evidence } from '../../domain/plan.ts';
import type { App } from './app.ts';

/**
 * `app.get('/healthz', …)`, `@app.get("/health")`, `http.HandleFunc("GET /healthz", …)`, `url === '/health'`. Of the app
 * itself only: the paths of routers, groups and blueprints may get a prefix elsewhere.
 */
const ROUTE =
  /(?:^\s*@?(?:app|server|fastify|mux|http|e|r)\.(?:get|route|all|handle|handlefunc)\s*\(|\b(?:url|pathname|path)\s*={2,3})\s*['"`](?:GET )?(\/(?:api\/)?(?:healthz?|health-?check|livez|readyz|ping|up))['"`]/i;

/** Of the first file with such a route; null when none has one. */
export function healthRoute(app: App, files: string[]): { path: string; evidence: Evidence } | null {
  const hit = app.search(files, ROUTE);
  if (!hit) return null;
  const path = hit.match[1]!;
  const found = `a route for ${path}`;
  return {
    path,
    evidence: {
      ...app.evidence(hit.file, found, `healthy when GET ${path} answers 2xx`),
      line: hit.line,
    },
  };
}

/** A route for `/` itself, of an app or of a router that may be mounted there; and what may answer there without one. */
const ROOT_ROUTE = /\.(?:get|route|api_route|mount|add_api_route)\s*\(\s*['"]\/?['"]|StaticFiles\s*\(/;
const OWN_DESCRIPTION = /\bopenapi_url\s*=/;

/** FastAPI describes itself at /openapi.json; an API without a route for `/` has nothing else that surely answers 2xx. */
export function fastapiHealth(app: App, files: string[]): { path: string; evidence: Evidence } | null {
  const at = app.search(files, /\bFastAPI\s*\(/);
  if (at === null || app.search(files, ROOT_ROUTE) || app.search(files, OWN_DESCRIPTION)) return null;
  const path = '/openapi.json';
  const follows = `healthy when GET ${path}, which FastAPI answers, is 2xx`;
  return { path, evidence: { ...app.evidence(at.file, 'no route for /', follows), line: at.line } };
}

/**
 * Header fields that concern one connection only and are never passed on (RFC 9110, 7.6.1): for the edge, which stands in
 * front of apps, and for the proxy that builds go out through.
 */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
]);

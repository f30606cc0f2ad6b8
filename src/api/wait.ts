const MAX_WAIT_S = 300;

/** How long the caller wants the answer held: `?wait=SECONDS`, else `Prefer: wait=SECONDS`, else `otherwise`. Milliseconds. */
export function waitMs(request: Request, query_wait: number | undefined, otherwise = 0): number {
  const preferred = /(?:^|[,;\s])wait\s*=\s*(\d{1,6})/i.exec(request.headers.get('prefer') ?? '')?.[1];
  const seconds = query_wait ?? (preferred === undefined ? undefined : Number(preferred));
  return seconds === undefined ? otherwise : Math.min(seconds, MAX_WAIT_S) * 1000;
}

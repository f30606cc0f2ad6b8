/** The reference as one static page: no script, nothing loaded from elsewhere. */
interface Operation {
  summary?: string;
  tags?: string[];
  security?: Record<string, string[]>[];
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
}

const html = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);

export function docsPage(document: Document): string {
  const by_tag = new Map<string, string[]>();
  for (const [path, methods] of Object.entries(document.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? 'Other';
      const scope = operation.security?.[0]?.key?.[0] ?? 'no key';
      const row = `<tr><td><b>${method.toUpperCase()}</b></td><td><code>${html(path)}</code></td><td>${html(operation.summary ?? '')}</td><td><code>${html(scope)}</code></td></tr>`;
      by_tag.set(tag, [...(by_tag.get(tag) ?? []), row]);
    }
  const sections = [...by_tag].map(
    ([tag, rows]) =>
      `<h2>${html(tag)}</h2><table><tr><th></th><th>Path</th><th>What it does</th><th>Scope</th></tr>${rows.join('')}</table>`,
  );
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Kiln API</title><style>${STYLE}</style></head><body>
<h1>Kiln API</h1><p>Every field and answer: <a href="/openapi.json">openapi.json</a> (OpenAPI 3.1).
Send <code>Authorization: Bearer msk_…</code>; repeat mutations safely with <code>Idempotency-Key</code>.</p>
${sections.join('\n')}</body></html>`;
}

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}' +
  'table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}' +
  'code{font-size:.9em}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}a{color:#8cf}}';

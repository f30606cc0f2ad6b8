import { ERROR_CODES } from '../domain/errors.ts';

/** docs/errors.md, made from the table of codes. */
export function errorsPage(): string {
  const rows = Object.values(ERROR_CODES).map(({ status, fault, retry, wire, about }) => [
    `\`${wire}\``,
    String(status),
    fault,
    retry ? 'yes' : 'no',
    about.replaceAll('|', '\\|'),
  ]);
  const columns = ['code', 'status', 'whose fault', 'retry', 'what it means'];
  return `# Errors

<!-- Made by scripts/openapi.ts from src/domain/errors.ts; edit there. -->

Every error answer has one body, whatever went wrong:

\`\`\`json
{
  "error": { "code": "VALIDATION_ERROR", "message": "…", "request_id": "req_…", "details": {} },
  "message": "…",
  "code": "VALIDATION_ERROR",
  "request_id": "req_…",
  "errors": { "port": ["…"] },
  "retry_after": 3
}
\`\`\`

\`errors\` comes with validation errors only, \`retry_after\` (seconds, also as header \`Retry-After\`) with 429 only. The
header \`x-request-id\` has the request id; the engine's log has every 5xx under it. **Retry** says whether the same
request, unchanged, may succeed later.

${table(columns, rows)}

Why a publish failed is not an error of the API: it is \`failure\` of the version and of the operation, as data.
`;
}

/** Columns padded, as the formatter of this repository writes them. */
function table(columns: string[], rows: string[][]): string {
  const widths = columns.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [line(columns), rule, ...rows.map(line)].join('\n');
}

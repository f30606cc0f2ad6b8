/** The audit log: who asked for which change of what, from where, and how it ended. Values of fields are never in it. */
import { ERROR_CODES, KilnError } from '../domain/errors.ts';
import { beginAudit, finishAudit, listAudit } from '../store/audit.ts';
import { type ApiDeps, type Caller, handle, type Mounted, reply } from './call.ts';
import { listAuditLog } from './contract/audit.ts';
import type { Route } from './contract/route.ts';
import { iso, pageOf } from './find.ts';

interface Asked {
  deps: ApiDeps;
  caller: Caller;
  route: Route;
  request: Request;
  request_id: string;
  params: Record<string, string>;
  remote_address: string | null;
}

const TEXT_CHARS = 300;
const clip = (text: string) => text.slice(0, TEXT_CHARS).toWellFormed().replaceAll('\0', '');

/**
 * The line is written before the work and completed after it: a change without a line cannot be, and a line without
 * an end tells of an engine that died. Errors: those of `work`, and those of the database.
 */
export async function audited(
  asked: Asked,
  work: (sawFields: (fields: string[]) => void) => Promise<Response>,
): Promise<Response> {
  const { deps, caller, route, request } = asked;
  const { db } = deps.database;
  const id = deps.newId('aud');
  await beginAudit(db, {
    id,
    tenant_id: caller.tenant_id,
    key_id: caller.key.id,
    key_name: caller.key.name,
    action: route.id,
    method: request.method,
    path: clip(new URL(request.url).pathname),
    params: Object.fromEntries(Object.entries(asked.params).map(([name, value]) => [name, clip(value)])),
    remote_address: asked.remote_address,
    user_agent: clip(request.headers.get('user-agent') ?? '') || null,
    request_id: asked.request_id,
  });
  let fields: string[] = [];
  const finish = (status: number, error_code: string | null) =>
    finishAudit(db, id, { status, error_code, fields }).catch((error) =>
      deps.log('error', 'the end of a change could not be entered in the audit log', {
        id,
        error: String(error),
      }),
    );
  try {
    const response = await work((seen) => {
      fields = seen;
    });
    await finish(response.status, response.status < 400 ? null : await codeOf(response));
    return response;
  } catch (error) {
    const { status, wire } = ERROR_CODES[error instanceof KilnError ? error.code : 'INTERNAL_ERROR'];
    await finish(status, wire);
    throw error;
  }
}

/** An error that was stored for its Idempotency-Key comes as an answer. */
async function codeOf(response: Response): Promise<string | null> {
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => null);
  const code = (body as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : null;
}

export const auditHandlers: Mounted[] = [
  handle(listAuditLog, async (call) => {
    if (call.caller.project_id !== null)
      throw new KilnError('FORBIDDEN', 'The audit log is for keys that are not limited to one project.');
    const { key_id, action, object_id } = call.query;
    const filter = { key_id, action, object_id };
    const page = await listAudit(call.deps.database.db, call.caller.tenant_id, filter, pageOf(call.query));
    return reply({
      data: page.data.map(({ tenant_id: _, ...row }) => ({
        ...row,
        created_at: iso(row.created_at),
        finished_at: iso(row.finished_at),
      })),
      next_cursor: page.next_cursor,
    });
  }),
];

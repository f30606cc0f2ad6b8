/**
 * Routes as data. One `Route` says everything the wire knows about a call: method and path, what it takes, what it
 * answers, which scope it needs. The server mounts it, the OpenAPI document prints it, clients are typed from it.
 */
import { z } from '@hono/zod-openapi';
import type { Scope } from '../../domain/tenant.ts';

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';

/** Which limit of the configuration bounds the body. */
export type BodySize = 'body' | 'file' | 'archive';

export interface Answer {
  about: string;
  /** Absent: see `media`. */
  schema?: z.ZodType;
  /** Streams and files: their content types, beside JSON if there is a schema as well. */
  media?: string[];
}

export interface Route<P = unknown, Q = unknown, B = unknown> {
  /** Name of the operation in the OpenAPI document and in generated clients. */
  id: string;
  method: Method;
  /** OpenAPI form (`/sandboxes/{id}`), below `/api/v1`. `{path*}` takes the rest, slashes included. */
  path: string;
  tag: string;
  about: string;
  /** Null: no key needed. */
  scope: Scope | null;
  /** Names of the path parameters; their values are opaque text. */
  params: (keyof P & string)[];
  query: z.ZodType<Q>;
  /** Null: the call takes none (one that is sent is ignored). */
  body: z.ZodType<B> | null;
  /** `raw`: the handler reads the bytes as they come; no Idempotency-Key (the call can be repeated as it is). */
  takes: 'json' | 'raw';
  size: BodySize;
  /** False for reads, and for streams, whose answer cannot be stored and sent again. */
  idempotent: boolean;
  /** The answer may come only when something has ended, minutes later; each key has so many such calls at a time. */
  holds: boolean;
  answers: Record<number, Answer>;
}

type Names<S> = S extends `${string}{${infer Name}}${infer Rest}`
  ? (Name extends `${infer Wild}*` ? Wild : Name) | Names<Rest>
  : never;
/** `/a/{id}/b/{path*}` has the parameters `id` and `path`. */
export type PathParams<S> = { [K in Names<S>]: string };

export interface Spec<S extends string, Q extends z.ZodType, B extends z.ZodType> {
  id: string;
  method: Method;
  path: S;
  tag: string;
  about: string;
  scope: Scope | null;
  query?: Q;
  body?: B;
  takes?: 'json' | 'raw';
  size?: BodySize;
  idempotent?: boolean;
  holds?: boolean;
  answers: Record<number, Answer>;
}

const NONE = z.object({});

/** Fills in what is usual: parameters named in the path are opaque ids; everything but GET honours Idempotency-Key; `wait` holds. */
export function defineRoute<
  const S extends string,
  Q extends z.ZodType = typeof NONE,
  B extends z.ZodType = z.ZodType<undefined>,
>(spec: Spec<S, Q, B>): Route<PathParams<S>, z.output<Q>, z.output<B>> {
  const takes = spec.takes ?? 'json';
  return {
    ...spec,
    params: paramNames(spec.path),
    query: (spec.query ?? NONE) as z.ZodType<z.output<Q>>,
    body: (spec.body ?? null) as z.ZodType<z.output<B>> | null,
    takes,
    size: spec.size ?? 'body',
    idempotent: spec.idempotent ?? (spec.method !== 'get' && takes === 'json'),
    holds: spec.holds ?? 'wait' in ((spec.query as unknown as z.ZodObject | undefined)?.shape ?? {}),
  } as unknown as Route<PathParams<S>, z.output<Q>, z.output<B>>;
}

export function paramNames(path: string): string[] {
  return [...path.matchAll(/\{(\w+)\*?\}/g)].map((m) => m[1]!);
}

/** An optional input: absent and `null` mean the same, some clients send the one, some the other. */
export function opt<T extends z.ZodType>(schema: T) {
  return schema.nullish();
}

export const ok = (schema: z.ZodType, about = 'Done.'): Record<number, Answer> => ({
  200: { about, schema },
});

export const enveloped = <T extends z.ZodType>(schema: T) => z.object({ data: schema });

export const listOf = <T extends z.ZodType>(schema: T) =>
  z.object({ data: z.array(schema), next_cursor: z.string().nullable() });

/** Query of every paged list. `page` counts from 1. */
export const PageQuery = z.object({
  limit: z.coerce.number().int().min(1).max(200).optional(),
  cursor: z.string().max(200).optional(),
  page: z.coerce.number().int().min(1).max(100_000).optional(),
  page_size: z.coerce.number().int().min(1).max(200).optional(),
});

/** Opaque labels of the caller's system; list filters. */
export const AttributionQuery = z.object({
  external_workspace_id: z.string().max(200).optional(),
  external_user_id: z.string().max(200).optional(),
  external_project_id: z.string().max(200).optional(),
});

export const WaitQuery = z.object({
  wait: z.coerce.number().min(0).max(300).optional().openapi({
    description:
      'Hold the answer until the outcome is known, at most this many seconds. Also `Prefer: wait=`.',
  }),
});

const label = () => opt(z.string().max(200));

export const AttributionInput = {
  external_workspace_id: label(),
  external_user_id: label(),
  external_project_id: label(),
};

/** Which workspace and project a new object goes to; found or made when named by slug, name or external id. */
export const OwnerInput = {
  ...AttributionInput,
  workspace_id: label(),
  workspace_slug: label(),
  workspace_name: label(),
  project_id: label(),
  project_slug: label(),
  project_name: label(),
};

/** Attribution on answers. */
export const AttributionFields = {
  external_workspace_id: z.string().nullable(),
  external_user_id: z.string().nullable(),
  external_project_id: z.string().nullable(),
};

/** ISO-8601, UTC. */
export const Time = z.iso.datetime();

const METADATA_BYTES = 16 * 1024;

export const Metadata = z.record(z.string(), z.unknown());

export const MetadataInput = z
  .record(z.string(), z.unknown())
  .refine((value) => Buffer.byteLength(JSON.stringify(value)) <= METADATA_BYTES, {
    message: `must be at most ${METADATA_BYTES} bytes as JSON`,
  });

export const NameInput = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .refine((text) => !hasControls(text), { message: 'must not hold control characters' });

function hasControls(text: string): boolean {
  for (const char of text) if (char.charCodeAt(0) < 0x20 || char.charCodeAt(0) === 0x7f) return true;
  return false;
}

export const Deleted = z.object({ id: z.string(), deleted: z.literal(true) }).openapi('Deleted');

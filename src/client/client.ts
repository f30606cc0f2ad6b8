/**
 * The typed client: calls named by method and path as the OpenAPI document has them; parameters, bodies and answers have
 * the types of schema.d.ts, which openapi-typescript makes of that document. How a call travels (retries, timeouts,
 * errors) is for who extends it.
 */
import type { components, paths } from './schema.d.ts';

type Short<P> = P extends `/api/v1${infer Rest}` ? Rest : never;
type Paths = { [P in keyof paths as Short<P>]: paths[P] };
type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';

/** Paths that have this method. */
export type PathOf<M extends Method> = {
  [P in keyof Paths]: [Paths[P][M]] extends [undefined] ? never : P;
}[keyof Paths];
type Operation<P extends keyof Paths, M extends Method> = NonNullable<Paths[P][M]>;

type Json<R> = R extends { content: { 'application/json': infer T } } ? T : never;
type Responses<O> = O extends { responses: infer R } ? R : never;
export type Answer<P extends keyof Paths, M extends Method> = Json<
  Responses<Operation<P, M>>[Extract<keyof Responses<Operation<P, M>>, 200 | 201 | 202>]
>;
type Params<O> = O extends { parameters: { path: infer X } } ? X : undefined;
type QueryOf<O> = O extends { parameters: { query?: infer X } } ? NonNullable<X> : never;
type BodyOf<O> = O extends { requestBody?: { content: { 'application/json': infer X } } } ? X : never;
type OrNull<T> = { [K in keyof T]: T[K] | null };

/** Schemas by their name in the document. */
export type Schema<N extends keyof components['schemas']> = components['schemas'][N];

export type Query = Record<string, string | number | boolean | null | undefined>;

export interface AnyCall {
  query?: Query;
  body?: unknown;
}

type Call<O, Options> = Options & { query?: OrNull<QueryOf<O>>; body?: BodyOf<O> } & ([Params<O>] extends [
    undefined,
  ]
    ? { params?: undefined }
    : { params: Params<O> });
type Args<O, Options> = [Params<O>] extends [undefined]
  ? [call?: Call<O, Options>]
  : [call: Call<O, Options>];

type ListPath = {
  [P in PathOf<'get'>]: Answer<P, 'get'> extends { data: unknown[]; next_cursor: string | null } ? P : never;
}[PathOf<'get'>];
export type RowOf<P extends ListPath> = Answer<P, 'get'> extends { data: (infer Row)[] } ? Row : never;

/** Rows of one page of a whole list, unless told otherwise. */
const PAGE_ROWS = 200;

export abstract class TypedClient<Options extends object> {
  /** One call as it travels: `path` is filled. Resolves to the JSON of the answer. */
  abstract request(
    method: Uppercase<Method>,
    path: string,
    call: AnyCall & Partial<Options>,
  ): Promise<unknown>;
  /** Is this error of `request` a 404? */
  protected abstract isNotFound(error: unknown): boolean;

  get<P extends PathOf<'get'>>(path: P, ...[call]: Args<Operation<P, 'get'>, Options>) {
    return this.#call<Answer<P, 'get'>>('GET', path, call);
  }
  post<P extends PathOf<'post'>>(path: P, ...[call]: Args<Operation<P, 'post'>, Options>) {
    return this.#call<Answer<P, 'post'>>('POST', path, call);
  }
  put<P extends PathOf<'put'>>(path: P, ...[call]: Args<Operation<P, 'put'>, Options>) {
    return this.#call<Answer<P, 'put'>>('PUT', path, call);
  }
  patch<P extends PathOf<'patch'>>(path: P, ...[call]: Args<Operation<P, 'patch'>, Options>) {
    return this.#call<Answer<P, 'patch'>>('PATCH', path, call);
  }
  delete<P extends PathOf<'delete'>>(path: P, ...[call]: Args<Operation<P, 'delete'>, Options>) {
    return this.#call<Answer<P, 'delete'>>('DELETE', path, call);
  }

  /** Null instead of a 404. */
  async find<P extends PathOf<'get'>>(
    path: P,
    ...[call]: Args<Operation<P, 'get'>, Options>
  ): Promise<Answer<P, 'get'> | null> {
    try {
      return await this.#call<Answer<P, 'get'>>('GET', path, call);
    } catch (error) {
      if (this.isNotFound(error)) return null;
      throw error;
    }
  }

  /** Every row of a paged list, page by page. */
  async *list<P extends ListPath>(
    path: P,
    ...[call]: Args<Operation<P, 'get'>, Options>
  ): AsyncGenerator<RowOf<P>> {
    let cursor: string | null = null;
    do {
      const query: Query = { limit: PAGE_ROWS, ...(call as AnyCall | undefined)?.query, cursor };
      const page: { data: RowOf<P>[]; next_cursor?: string | null } = await this.#call('GET', path, {
        ...call,
        query,
      });
      yield* page.data;
      cursor = page.next_cursor ?? null;
    } while (cursor !== null);
  }

  #call<T>(method: Uppercase<Method>, path: string, call: object = {}): Promise<T> {
    const { params, ...rest } = call as { params?: Record<string, string> } & AnyCall & Partial<Options>;
    return this.request(method, fillPath(path, params ?? {}), rest as never) as Promise<T>;
  }
}

/** Parameters are text that somebody typed: encoded, slashes included. */
export function fillPath(path: string, params: Record<string, string>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ''));
}

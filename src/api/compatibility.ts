/**
 * Would a client that works with the `before` document still work with `after`? Pure. What counts as breaking: a call,
 * an answer status or an answer field that is gone or has another type; an answer that may say something new where the
 * strictest client knows a closed list; an input that is gone, newly required, or takes less than it did.
 */
// biome-ignore lint/suspicious/noExplicitAny: OpenAPI documents are walked as the JSON they are
type Doc = any;

interface Walk {
  before: Doc;
  after: Doc;
  found: string[];
  /** Pairs of references under way: schemas may be recursive. */
  seen: Set<string>;
}

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** One line per break; empty when there is none. */
export function breakingChanges(before: Doc, after: Doc): string[] {
  const walk: Walk = { before, after, found: [], seen: new Set() };
  for (const [path, item] of Object.entries<Doc>(before.paths ?? {}))
    for (const method of METHODS) {
      // A call that could only be refused had no users to break.
      if (item[method] === undefined || !canSucceed(item[method])) continue;
      const at = `${method.toUpperCase()} ${path}`;
      const now = after.paths?.[path]?.[method];
      if (now === undefined) walk.found.push(`${at}: the call is gone`);
      else compareCall(walk, at, item[method], now);
    }
  return walk.found;
}

function canSucceed(call: Doc): boolean {
  return Object.keys(call.responses ?? {}).some((status) => /^[123]/.test(status));
}

function compareCall(walk: Walk, at: string, was: Doc, now: Doc): void {
  if (was.operationId !== now.operationId) walk.found.push(`${at}: operationId ${was.operationId} changed`);
  for (const [status, answer] of Object.entries<Doc>(was.responses ?? {})) {
    const then = now.responses?.[status];
    if (then === undefined) {
      walk.found.push(`${at}: the answer ${status} is gone`);
      continue;
    }
    for (const [media, { schema }] of Object.entries<Doc>(answer.content ?? {}))
      if (then.content?.[media] === undefined) walk.found.push(`${at} ${status}: ${media} is gone`);
      else compareSchema(walk, `${at} ${status}`, schema, then.content[media].schema, 'answer');
  }
  for (const parameter of was.parameters ?? []) {
    const then = (now.parameters ?? []).find((p: Doc) => p.name === parameter.name && p.in === parameter.in);
    if (then === undefined) walk.found.push(`${at}: the parameter ${parameter.name} is gone`);
    else compareSchema(walk, `${at} ?${parameter.name}`, parameter.schema, then.schema, 'input');
  }
  for (const parameter of now.parameters ?? [])
    if (
      parameter.required &&
      !(was.parameters ?? []).some((p: Doc) => p.name === parameter.name && p.required)
    )
      walk.found.push(`${at}: the parameter ${parameter.name} is newly required`);
  const body = (doc: Doc) => doc.requestBody?.content?.['application/json']?.schema;
  if (body(was) !== undefined && body(now) === undefined) walk.found.push(`${at}: takes no body any more`);
  if (body(was) !== undefined && body(now) !== undefined)
    compareSchema(walk, `${at} body`, body(was), body(now), 'input');
}

function resolve(document: Doc, schema: Doc): Doc {
  const name = /^#\/components\/schemas\/(.+)$/.exec(schema?.$ref ?? '')?.[1];
  return name === undefined ? schema : resolve(document, document.components?.schemas?.[name]);
}

function compareSchema(walk: Walk, at: string, was: Doc, now: Doc, side: 'answer' | 'input'): void {
  if (was?.$ref && now?.$ref) {
    const pair = `${side} ${was.$ref} ${now.$ref}`;
    if (walk.seen.has(pair)) return;
    walk.seen.add(pair);
  }
  const a = resolve(walk.before, was);
  const b = resolve(walk.after, now);
  if (a === undefined || b === undefined || typeof a !== 'object' || typeof b !== 'object') return;
  compareTypes(walk, at, a, b, side);
  compareEnums(walk, at, a, b, side);
  for (const [name, field] of Object.entries<Doc>(a.properties ?? {})) {
    const then = b.properties?.[name];
    if (then === undefined) walk.found.push(`${at}: the field ${name} is gone`);
    else compareSchema(walk, `${at}.${name}`, field, then, side);
  }
  const required = (schema: Doc): string[] => schema.required ?? [];
  if (side === 'input')
    for (const name of required(b))
      if (!required(a).includes(name)) walk.found.push(`${at}: the field ${name} is newly required`);
  if (side === 'answer')
    for (const name of required(a))
      if (b.properties?.[name] !== undefined && !required(b).includes(name))
        walk.found.push(`${at}: the field ${name} may now be absent`);
  if (a.items && b.items) compareSchema(walk, `${at}[]`, a.items, b.items, side);
  compareBounds(walk, at, a, b, side);
}

/** Types a value may have, through unions; empty for "anything". */
function typesOf(schema: Doc): string[] {
  if (Array.isArray(schema.type)) return schema.type;
  if (typeof schema.type === 'string') return [schema.type];
  return (schema.anyOf ?? schema.oneOf ?? []).flatMap((one: Doc) => typesOf(one));
}

function compareTypes(walk: Walk, at: string, a: Doc, b: Doc, side: 'answer' | 'input'): void {
  const [was, now] = [typesOf(a), typesOf(b)];
  // An answer may say less than it did, an input may take more.
  const [narrow, wide] = side === 'answer' ? [now, was] : [was, now];
  if (wide.length === 0) return;
  const fits = (type: string) => wide.includes(type) || (type === 'integer' && wide.includes('number'));
  const odd = narrow.filter((type) => !fits(type));
  if (odd.length > 0 || (narrow.length === 0 && a.$ref === undefined && was.length !== now.length))
    walk.found.push(`${at}: the type was ${was.join('|') || 'any'} and is ${now.join('|') || 'any'}`);
}

function compareEnums(walk: Walk, at: string, a: Doc, b: Doc, side: 'answer' | 'input'): void {
  const values = (schema: Doc): unknown[] | null =>
    schema.const !== undefined ? [schema.const] : (schema.enum ?? null);
  const [was, now] = [values(a), values(b)];
  if (side === 'input' && now !== null) {
    const lost = was === null ? ['(any)'] : was.filter((value) => !now.includes(value));
    if (lost.length > 0) walk.found.push(`${at}: does not take ${lost.join(', ')} any more`);
  }
  if (side === 'answer' && was !== null) {
    const fresh = now === null ? ['(any)'] : now.filter((value) => !was.includes(value));
    if (fresh.length > 0)
      walk.found.push(`${at}: may now be ${fresh.join(', ')}, which strict clients reject`);
  }
}

/** Only of inputs: a bound that is tighter refuses what was taken. */
function compareBounds(walk: Walk, at: string, a: Doc, b: Doc, side: 'answer' | 'input'): void {
  if (side !== 'input') return;
  for (const name of ['maximum', 'maxLength', 'maxItems'])
    if (b[name] !== undefined && (a[name] ?? Number.POSITIVE_INFINITY) > b[name])
      walk.found.push(`${at}: ${name} is now ${b[name]}`);
  for (const name of ['minimum', 'minLength', 'minItems'])
    if (b[name] !== undefined && (a[name] ?? Number.NEGATIVE_INFINITY) < b[name])
      walk.found.push(`${at}: ${name} is now ${b[name]}`);
}

/** Which compressed form of a file a client may be sent (RFC 9110, 12.5.3). Pure. */

/** In order of preference where a client has none: Brotli makes the smaller ones. */
export const CODINGS = ['br', 'gzip'] as const;
export type Coding = (typeof CODINGS)[number];

export interface AcceptedCodings {
  /** The one to send; null for the file as it is. */
  preferred: Coding | null;
  /** All that the client takes, null for the file as it is. */
  accepted: ReadonlySet<Coding | null>;
}

const AS_IT_IS: AcceptedCodings = { preferred: null, accepted: new Set([null]) };

/** Reads `Accept-Encoding`. Where a client takes nothing at all, it gets the file as it is. */
export function acceptedCodings(header: string | undefined): AcceptedCodings {
  if (header === undefined) return AS_IT_IS;
  const weights = readWeights(header);
  const any = weights.get('*');
  const weightOf = (name: string): number | undefined => weights.get(name) ?? any;
  // What the client says nothing about it takes as it is, but anything that it names is welcome before that.
  const as_it_is = weightOf('identity') ?? Number.MIN_VALUE;
  const accepted = new Set<Coding | null>();
  let preferred: Coding | null = null;
  let best = 0;
  for (const coding of CODINGS) {
    const weight = weightOf(coding) ?? 0;
    if (weight > 0) accepted.add(coding);
    if (weight > best) [preferred, best] = [coding, weight];
  }
  if (as_it_is > best) preferred = null;
  if (as_it_is > 0 || accepted.size === 0) accepted.add(null);
  return { preferred, accepted };
}

const ITEM = /^([!#$%&'*+\-.^_`|~0-9a-z]+)(?:[\t ]*;[\t ]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?$/;

/** Nobody has so many; each costs time. */
const MAX_ITEMS = 32;

/** What is malformed is not heard. */
function readWeights(header: string): Map<string, number> {
  const weights = new Map<string, number>();
  for (const part of header.toLowerCase().split(',', MAX_ITEMS)) {
    const item = ITEM.exec(part.trim());
    if (item === null) continue;
    const name = item[1] === 'x-gzip' ? 'gzip' : item[1]!;
    weights.set(name, item[2] === undefined ? 1 : Number(item[2]));
  }
  return weights;
}

const COMPRESSIBLE =
  /^(?:text\/|application\/(?:wasm|rtf|toml|yaml|graphql|x-ndjson|x-sh|vnd\.ms-fontobject)$|image\/(?:bmp|x-icon|vnd\.microsoft\.icon)$|font\/(?:ttf|otf|collection)$|model\/(?:obj|stl)$)|[/+](?:json|xml|javascript)$/;

/** Does compressing files of this content type make them smaller? */
export function isCompressible(content_type: string): boolean {
  const end = content_type.indexOf(';');
  return COMPRESSIBLE.test(end === -1 ? content_type : content_type.slice(0, end));
}

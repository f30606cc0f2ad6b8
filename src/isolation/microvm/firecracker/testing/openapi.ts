/**
 * Firecracker's own API document (Swagger 2.0) as a judge of requests and answers. It is not part of this repository:
 * where it is absent, tests that need it are skipped and say so.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv, type ValidateFunction } from 'ajv';
import { parse } from 'yaml';

export interface ApiDocument {
  version: string;
  /** What is wrong with a request; empty when nothing is. Fields that the document does not know are wrong. */
  request(method: string, path: string, body: unknown): string[];
  answer(method: string, path: string, status: number, body: unknown): string[];
}

export const DOCUMENT_ABSENT =
  "Firecracker's API document (../shared/firecracker/firecracker-api.yaml) is not here";

const ROOT = join(import.meta.dirname, '../../../../..');

export function loadApiDocument(): ApiDocument | null {
  const path = ['../shared', '../../shared']
    .map((folder) => join(ROOT, folder, 'firecracker/firecracker-api.yaml'))
    .find((file) => existsSync(file));
  return path === undefined ? null : readApiDocument(readFileSync(path, 'utf8'));
}

interface Operation {
  parameters?: { name: string; in: string; required?: boolean; schema?: Schema }[];
  responses: Record<string, { schema?: Schema }>;
}
type Schema = Record<string, unknown>;

function readApiDocument(text: string): ApiDocument {
  const document = parse(text) as {
    info: { version: string };
    paths: Record<string, Record<string, Operation>>;
    definitions: Record<string, Schema>;
  };
  // Formats of Swagger (int64) are not JSON Schema's.
  const ajv = new Ajv({ allErrors: true, strict: false, validateFormats: false });
  ajv.addSchema({ $id: 'firecracker', definitions: closed(document.definitions) as Schema });
  const compiled = new Map<Schema, ValidateFunction>();
  function check(schema: Schema, body: unknown): string[] {
    const validate = compiled.get(schema) ?? ajv.compile(absolute(closed(schema)) as Schema);
    compiled.set(schema, validate);
    if (validate(body)) return [];
    return (validate.errors ?? []).map((error) => {
      const extra = error.params.additionalProperty ?? error.params.allowedValues ?? '';
      return `${error.instancePath || 'body'} ${error.message} ${extra}`.trim();
    });
  }
  function find(method: string, path: string): Operation | string {
    const template = Object.keys(document.paths).find((one) => matches(one, path));
    if (template === undefined) return `no such path: ${path}`;
    return document.paths[template]![method.toLowerCase()] ?? `${path} has no ${method}`;
  }
  return {
    version: document.info.version,
    request(method, path, body) {
      const operation = find(method, path);
      if (typeof operation === 'string') return [operation];
      const parameter = operation.parameters?.find((one) => one.in === 'body');
      if (parameter?.schema === undefined) return body === undefined ? [] : ['this call has no body'];
      if (body === undefined) return parameter.required ? ['the body is missing'] : [];
      return check(parameter.schema, body);
    },
    answer(method, path, status, body) {
      const operation = find(method, path);
      if (typeof operation === 'string') return [operation];
      const response = operation.responses[String(status)] ?? operation.responses.default;
      if (response === undefined) return [`${method} ${path} has no status ${status}`];
      if (response.schema === undefined) return body === undefined ? [] : [`status ${status} has no body`];
      return body === undefined ? [`status ${status} needs a body`] : check(response.schema, body);
    },
  };
}

/** Swagger lets every object have more fields; here a misspelt one is an error. */
function closed(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(closed);
  if (typeof node !== 'object' || node === null) return node;
  const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, closed(value)]));
  if (copy.type === 'object' && copy.properties !== undefined) copy.additionalProperties ??= false;
  return copy;
}

/** References as seen from outside the document. */
function absolute(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(absolute);
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => [
      key,
      key === '$ref' && typeof value === 'string' && value.startsWith('#')
        ? `firecracker${value}`
        : absolute(value),
    ]),
  );
}

function matches(template: string, path: string): boolean {
  const [wanted, given] = [template.split('/'), path.split('/')];
  return (
    wanted.length === given.length &&
    wanted.every((part, at) => (part.startsWith('{') ? given[at] !== '' : part === given[at]))
  );
}

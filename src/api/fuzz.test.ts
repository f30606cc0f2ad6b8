/** Whatever is sent: never a 5xx, and (strict answers) never a body outside its schema. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { z } from '@hono/zod-openapi';
import fc from 'fast-check';
import { ENDPOINTS } from './routes.ts';
import { openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';

const RUNS = 600;

let api: TestApi;
let known: Record<string, string>;
before(async () => {
  api = await openTestApi();
  const { sandbox, deployment } = await sandboxAndDeployment(api);
  const { data } = (await api.ask('POST', `/sandboxes/${sandbox.id}/deploy`, { body: { name: 'fuzzed' } }))
    .body;
  await api.engine.finish(data.version_id);
  known = {
    sandbox: sandbox.id,
    deployment: deployment.id,
    version_id: data.version_id,
    operation_id: data.operation_id,
    build_id: data.version.build_id,
    path: 'index.html',
  };
});
after(() => api.close());

const odd = fc.oneof(
  fc.constantFrom(
    '',
    '..',
    '../..',
    '/etc/passwd',
    '/workspace',
    'a/b',
    '\0',
    '\ud800',
    '💥',
    '__proto__',
    'null',
    '%',
  ),
  fc.string(),
  fc.integer(),
  fc.double(),
  fc.boolean(),
  fc.constant(null),
  fc.jsonValue(),
);

/** Commands would be run for real, a destroyed sandbox would end the fun, and streams do not end. */
const LEFT_OUT = new Set([
  'execSandbox',
  'streamExec',
  'deleteSandbox',
  'deleteDeployment',
  'streamEvents',
  'streamSandboxEvents',
  'streamSandboxLogs',
  'watchSandboxFiles',
]);
const endpoints = new Map(
  ENDPOINTS.filter(({ route }) => !LEFT_OUT.has(route.id)).map(({ route }) => [route.id, route]),
);

function fieldsOf(schema: z.ZodType | null): string[] {
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

test('random requests to every endpoint', async () => {
  const request = fc.constantFrom(...endpoints.values()).chain((route) =>
    fc.record({
      // By name: a counterexample must be readable.
      id: fc.constant(route.id),
      params: fc.array(fc.oneof({ weight: 4, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: odd }), {
        minLength: 3,
        maxLength: 3,
      }),
      body: fc.dictionary(fc.oneof(fc.constantFrom('x', ...fieldsOf(route.body)), fc.string()), odd, {
        maxKeys: 5,
      }),
      query: fc.dictionary(
        fc.constantFrom('x', ...fieldsOf(route.query)),
        fc.oneof(fc.string(), fc.nat().map(String)),
        {
          maxKeys: 2,
        },
      ),
      accept: fc.constantFrom('application/json', '*/*'),
    }),
  );
  await fc.assert(
    fc.asyncProperty(request, async ({ id, params, body, query, accept }) => {
      const route = endpoints.get(id)!;
      const names = route.params as string[];
      const at = names.reduce((path, name, i) => {
        const usual =
          name === 'id' ? known[route.path.startsWith('/sandboxes') ? 'sandbox' : 'deployment'] : known[name];
        const given = params[i] ?? usual ?? 'none';
        // Objects may have a `toString` that is none.
        const value = encode(typeof given === 'object' ? JSON.stringify(given) : String(given));
        return path.replace(`{${name}}`, () => value).replace(`{${name}*}`, () => value);
      }, route.path);
      const { wait: _, ...asked } = query;
      const search = new URLSearchParams(asked);
      const raw = route.method === 'get' || route.takes === 'raw' ? {} : { body };
      const answer = await api.ask(route.method.toUpperCase(), `${at}?${search}`, {
        ...raw,
        headers: { accept },
      });
      assert.ok(answer.status < 500, `${route.id}: ${answer.status} ${api.logged.at(-1)}`);
    }),
    { numRuns: RUNS, endOnFailure: true },
  );
  assert.deepEqual(api.logged, []);
});

/** As a client that encodes everything does; half characters cannot be sent at all. */
function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

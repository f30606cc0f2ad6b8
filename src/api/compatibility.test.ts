import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { breakingChanges } from './compatibility.ts';
import { openApiDocument } from './openapi.ts';
import { ENDPOINTS } from './routes.ts';

const document = () => ({
  paths: {
    '/things': {
      post: {
        operationId: 'makeThing',
        parameters: [{ in: 'query', name: 'limit', schema: { type: 'integer', maximum: 10 } }],
        requestBody: {
          content: {
            'application/json': {
              schema: {
                type: 'object',
                properties: {
                  kind: { type: 'string', enum: ['a', 'b'] },
                  name: { type: 'string', maxLength: 9 },
                },
                required: ['name'],
              },
            },
          },
        },
        responses: {
          '200': { content: { 'application/json': { schema: { $ref: '#/components/schemas/Thing' } } } },
        },
      },
    },
  },
  components: {
    schemas: {
      Thing: {
        type: 'object',
        properties: {
          id: { type: 'string' },
          state: { type: 'string', enum: ['on', 'off'] },
          at: { type: ['string', 'null'] },
          child: { $ref: '#/components/schemas/Thing' },
        },
        required: ['id', 'state'],
      },
    },
  },
});
// biome-ignore lint/suspicious/noExplicitAny: the point is to break it at will
type Any = any;

/** The breaks of one change. */
function after(change: (doc: Any) => void): string[] {
  const doc = document();
  change(doc);
  return breakingChanges(document(), doc);
}
const post = (doc: Any) => doc.paths['/things'].post;
const thing = (doc: Any) => doc.components.schemas.Thing;
const input = (doc: Any) => post(doc).requestBody.content['application/json'].schema;

test('what clients rely on', () => {
  const cases: [RegExp, (doc: Any) => void][] = [
    [/call is gone/, (d) => delete d.paths['/things']],
    [/operationId/, (d) => Object.assign(post(d), { operationId: 'x' })],
    [/answer 200 is gone/, (d) => Object.assign(post(d), { responses: {} })],
    [/field state is gone/, (d) => delete thing(d).properties.state],
    [/type was string and is integer/, (d) => Object.assign(thing(d).properties.id, { type: 'integer' })],
    [
      /type was string and is string\|null/,
      (d) => Object.assign(thing(d).properties.id, { type: ['string', 'null'] }),
    ],
    [/may now be dead/, (d) => thing(d).properties.state.enum.push('dead')],
    [/may now be absent/, (d) => Object.assign(thing(d), { required: ['id'] })],
    [/parameter limit is gone/, (d) => Object.assign(post(d), { parameters: [] })],
    [
      /parameter q is newly required/,
      (d) => post(d).parameters.push({ in: 'query', name: 'q', required: true }),
    ],
    [/maximum is now 5/, (d) => Object.assign(post(d).parameters[0].schema, { maximum: 5 })],
    [/does not take b/, (d) => input(d).properties.kind.enum.pop()],
    [/kind is newly required/, (d) => input(d).required.push('kind')],
    [/maxLength is now 3/, (d) => Object.assign(input(d).properties.name, { maxLength: 3 })],
    [/body any more/, (d) => delete post(d).requestBody],
  ];
  for (const [expected, change] of cases) {
    const found = after(change);
    assert.equal(found.length, 1, `${expected}: ${found.join('; ')}`);
    assert.match(found[0]!, expected);
  }
});

test('a call that only ever refused may become one that works', () => {
  const refusing = document();
  post(refusing).responses = { '4XX': post(refusing).responses['200'] };
  assert.deepEqual(breakingChanges(refusing, document()), []);
  assert.equal(breakingChanges(document(), refusing).length, 1);
});

test('what they do not notice', () => {
  const cases: ((doc: Any) => void)[] = [
    () => {},
    (d) => Object.assign(d.paths, { '/more': { get: { responses: {} } } }),
    (d) => Object.assign(thing(d).properties, { extra: { type: 'string' } }),
    (d) => Object.assign(thing(d).properties.at, { type: 'string' }),
    (d) => thing(d).properties.state.enum.pop(),
    (d) => input(d).properties.kind.enum.push('c'),
    (d) => Object.assign(input(d), { required: [] }),
    (d) => Object.assign(post(d).parameters[0].schema, { maximum: 50 }),
    (d) => post(d).parameters.push({ in: 'query', name: 'q' }),
  ];
  for (const change of cases) assert.deepEqual(after(change), []);
});

test('this version breaks nothing of the last released one', async () => {
  const released = JSON.parse(
    await readFile(new URL('../../docs/openapi-0.1.json', import.meta.url), 'utf8'),
  );
  const now = JSON.parse(JSON.stringify(openApiDocument(ENDPOINTS.map(({ route }) => route))));
  assert.deepEqual(breakingChanges(released, now), []);
});

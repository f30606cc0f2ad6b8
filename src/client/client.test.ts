/** What the compiler holds callers to (each @ts-expect-error is an error if there is none), and how paths are filled. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Answer, fillPath, TypedClient } from './client.ts';

class Recording extends TypedClient<{ timeout_ms?: number }> {
  readonly seen: unknown[] = [];
  answer: unknown = { data: [] };
  override async request(method: string, path: string, call: object): Promise<unknown> {
    this.seen.push([method, path, call]);
    return this.answer;
  }
  protected override isNotFound(): boolean {
    return false;
  }
}

test('calls have the parameters, bodies and answers of the document', async () => {
  const client = new Recording();
  const { data } = await client.get('/deployments/{id}', { params: { id: 'a/b c' }, timeout_ms: 5 });
  const state: Answer<'/deployments/{id}', 'get'>['data']['state'] = data.state;
  assert.equal(state, undefined);
  await client.post('/deployments', { body: { name: 'x' } });
  await client.delete('/deployments/{id}/env/{name}', { params: { id: 'd', name: 'N' } });
  for await (const { slug } of client.list('/deployments', { query: { state: 'running' } })) slug.length;
  assert.deepEqual(client.seen, [
    ['GET', '/deployments/a%2Fb%20c', { timeout_ms: 5 }],
    ['POST', '/deployments', { body: { name: 'x' } }],
    ['DELETE', '/deployments/d/env/N', {}],
    ['GET', '/deployments', { query: { limit: 200, state: 'running', cursor: null } }],
  ]);
  const never = () => {
    // @ts-expect-error there is no such path
    void client.get('/deployment');
    // @ts-expect-error the path has a parameter
    void client.get('/deployments/{id}');
    // @ts-expect-error the name is missing
    void client.post('/deployments', { body: {} });
    // @ts-expect-error no such state
    void client.list('/deployments', { query: { state: 'asleep' } });
    // @ts-expect-error a path that is not a list
    void client.list('/doctor');
    // @ts-expect-error this path has no DELETE
    void client.delete('/deployments');
  };
  assert.equal(typeof never, 'function');
});

test('a parameter is text, whatever is in it', () => {
  assert.equal(fillPath('/a/{x}/b/{y}', { x: '../{y}', y: '?#%' }), '/a/..%2F%7By%7D/b/%3F%23%25');
});

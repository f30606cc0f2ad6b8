/** The contract as an OpenAPI 3.1 document, made from the routes. */
import { OpenAPIHono, z } from '@hono/zod-openapi';
import { ErrorBody } from './contract/error.ts';
import type { Route } from './contract/route.ts';

export const API_BASE = '/api/v1';

interface ResponseDoc {
  description: string;
  content?: Record<string, { schema?: z.ZodType | { type: 'string'; format?: 'binary' } }>;
}

export function openApiDocument(routes: Route[]): object {
  const app = new OpenAPIHono();
  app.openAPIRegistry.registerComponent('securitySchemes', 'key', { type: 'http', scheme: 'bearer' });
  for (const route of routes)
    app.openAPIRegistry.registerPath({
      method: route.method,
      path: API_BASE + route.path.replaceAll('*}', '}'),
      operationId: route.id,
      summary: route.about,
      tags: [route.tag],
      ...(route.scope === null ? {} : { security: [{ key: [route.scope] }] }),
      request: request(route),
      responses: responses(route) as never,
    });
  return app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Kiln',
      version: '1',
      description:
        'The publish engine. Every mutation honours Idempotency-Key; every error has the body `Error` (docs/errors.md lists the codes).',
    },
  });
}

function request(route: Route) {
  return {
    query: route.query as z.ZodObject,
    ...(route.params.length > 0 ? { params: pathParams(route.params) } : {}),
    ...(route.takes === 'raw'
      ? {
          body: {
            required: true,
            content: {
              'application/x-tar': { schema: { type: 'string' as const, format: 'binary' } },
              'application/gzip': { schema: { type: 'string' as const, format: 'binary' } },
            },
          },
        }
      : route.body
        ? { body: { content: { 'application/json': { schema: route.body } } } }
        : {}),
  };
}

const pathParams = (names: string[]) => z.object(Object.fromEntries(names.map((name) => [name, z.string()])));

function responses(route: Route): Record<string, ResponseDoc> {
  const docs: Record<string, ResponseDoc> = {};
  for (const [status, answer] of Object.entries(route.answers)) {
    const content: NonNullable<ResponseDoc['content']> = {};
    if (answer.schema) content['application/json'] = { schema: answer.schema };
    // A stream is no single value: tools would hold each of its events to a schema.
    for (const media of answer.media ?? [])
      content[media] = media === 'text/event-stream' ? {} : { schema: { type: 'string' } };
    docs[status] = { description: answer.about, content };
  }
  const error = { 'application/json': { schema: ErrorBody } };
  docs['4XX'] = { description: 'What is wrong with the request.', content: error };
  docs['5XX'] = { description: 'A fault of the engine.', content: error };
  return docs;
}

/**
 * MCP over HTTP (streamable, without sessions): a POST is one message, answered with JSON. Tools call the API itself
 * with the key of the request, so scopes, idempotency and the audit log hold for them as for everybody.
 */
import type { OpenAPIHono } from '@hono/zod-openapi';
import { KilnError } from '../domain/errors.ts';
import { answerMessage, PARSE_ERROR } from '../mcp/protocol.ts';
import type { ToolPort } from '../mcp/tools.ts';
import type { Authenticator } from './auth.ts';
import { readBody } from './body.ts';
import { API_BASE } from './openapi.ts';

const MESSAGE_BYTES = 1024 * 1024;

export function mountMcp(app: OpenAPIHono, authenticator: Authenticator): void {
  app.on(['GET', 'DELETE'], '/mcp', () => {
    throw new KilnError('METHOD_NOT_ALLOWED', '/mcp takes POST; it keeps no sessions and no streams.', {
      details: { allow: 'POST' },
    });
  });
  app.post('/mcp', async (c) => {
    const request = c.req.raw;
    refuseForeignOrigin(request);
    const authorization = request.headers.get('authorization');
    await authenticator.authenticate(authorization);
    const bytes = await readBody(request, MESSAGE_BYTES);
    const port: ToolPort = {
      ask: async (method, path, body, headers = {}) => {
        const answer = await app.request(
          API_BASE + path,
          {
            method,
            headers: {
              authorization: authorization!,
              'content-type': 'application/json',
              accept: 'application/json',
              'user-agent': 'kiln-mcp',
              ...headers,
            },
            signal: request.signal,
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          },
          c.env,
        );
        return { status: answer.status, body: await answer.json().catch(() => null) };
      },
    };
    let message: unknown;
    try {
      message = JSON.parse(bytes.toString('utf8'));
    } catch {
      return c.json(PARSE_ERROR, 400);
    }
    const answer = await answerMessage(message, port);
    return answer === null ? c.body(null, 202) : c.json(answer);
  });
}

/** A web page must not reach an engine on the machine of whoever looks at it (DNS rebinding). */
function refuseForeignOrigin(request: Request): void {
  const origin = request.headers.get('origin');
  if (origin === null) return;
  if (URL.parse(origin)?.host !== request.headers.get('host'))
    throw new KilnError('FORBIDDEN', 'Pages of another origin may not call /mcp.');
}

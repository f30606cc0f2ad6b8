/**
 * The part of the Model Context Protocol that tools need: JSON-RPC 2.0 with initialize, ping, tools/list, tools/call.
 * (modelcontextprotocol.io, revision 2025-06-18.) Transport-free: one message in, one answer or none out.
 */
import { callTool, TOOLS, type ToolPort } from './tools.ts';

export const PROTOCOL_VERSIONS = ['2025-06-18', '2025-03-26', '2024-11-05'];

type Id = string | number | null;
export type RpcAnswer =
  | { jsonrpc: '2.0'; id: Id; result: unknown }
  | { jsonrpc: '2.0'; id: Id; error: { code: number; message: string } };

const fault = (id: Id, code: number, message: string): RpcAnswer => ({
  jsonrpc: '2.0',
  id,
  error: { code, message },
});

export const PARSE_ERROR = fault(null, -32_700, 'The message is not JSON.');

/** Null for notifications, which have no answer. Never rejects. */
export async function answerMessage(message: unknown, port: ToolPort): Promise<RpcAnswer | null> {
  const { jsonrpc, id, method, params } = (message ?? {}) as Record<string, unknown>;
  if (jsonrpc !== '2.0' || typeof method !== 'string')
    return fault(null, -32_600, 'Not a JSON-RPC 2.0 request.');
  if (id === undefined) return null;
  if (typeof id !== 'string' && typeof id !== 'number')
    return fault(null, -32_600, 'The id must be a string or a number.');
  const given = (typeof params === 'object' && params !== null ? params : {}) as Record<string, unknown>;
  const result = (value: unknown): RpcAnswer => ({ jsonrpc: '2.0', id, result: value });
  switch (method) {
    case 'initialize':
      return result(hello(given.protocolVersion));
    case 'ping':
      return result({});
    case 'tools/list':
      return result({ tools: TOOLS.filter((tool) => !tool.needs_folders || port.bringFolder).map(describe) });
    case 'tools/call': {
      const tool = TOOLS.find(({ name }) => name === given.name);
      if (!tool) return fault(id, -32_602, `There is no tool ${JSON.stringify(given.name ?? null)}.`);
      return result(await callTool(tool, given.arguments, port));
    }
    default:
      return fault(id, -32_601, `There is no method ${method.slice(0, 100)}.`);
  }
}

function hello(asked: unknown) {
  return {
    protocolVersion: PROTOCOL_VERSIONS.find((version) => version === asked) ?? PROTOCOL_VERSIONS[0],
    capabilities: { tools: { listChanged: false } },
    serverInfo: { name: 'kiln', title: 'Kiln', version: '1' },
    instructions:
      'Kiln publishes apps. Publish, then watch with `status` until the version is ready or failed; on failure call `explain_failure` and do what its next_step says. Production changes only when a version is proved healthy; `rollback` goes back at once.',
  };
}

function describe({ name, title, description, input }: (typeof TOOLS)[number]) {
  const read_only = !['publish', 'publish_folder', 'rollback'].includes(name);
  return { name, title, description, inputSchema: input, annotations: { readOnlyHint: read_only } };
}

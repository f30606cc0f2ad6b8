/** MCP over standard input and output: one JSON-RPC message per line. */
import { createInterface } from 'node:readline';
import { answerMessage, PARSE_ERROR } from './protocol.ts';
import type { ToolPort } from './tools.ts';

const LINE_CHARS = 1024 * 1024;

/** Until the input ends or `signal` aborts; messages are answered side by side, each as soon as it is done. */
export async function serveStdio(
  input: NodeJS.ReadableStream,
  write: (line: string) => void,
  port: ToolPort,
  signal: AbortSignal,
): Promise<void> {
  const lines = createInterface({ input, signal });
  const under_way = new Set<Promise<void>>();
  for await (const line of lines) {
    if (line.trim() === '') continue;
    const work = answerLine(line, port).then((answer) => {
      if (answer !== null) write(`${JSON.stringify(answer)}\n`);
      under_way.delete(work);
    });
    under_way.add(work);
  }
  await Promise.all(under_way);
}

async function answerLine(line: string, port: ToolPort) {
  if (line.length > LINE_CHARS) return PARSE_ERROR;
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch {
    return PARSE_ERROR;
  }
  return answerMessage(message, port);
}

/** Server-sent events, read as they come (WHATWG HTML, 9.2.6). */
export interface StreamEvent {
  event: string;
  /** Parsed when it is JSON. */
  data: unknown;
}

const MAX_FRAME_LENGTH = 16 * 1024 * 1024;

export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > MAX_FRAME_LENGTH) throw new Error('a frame of the stream is too long');
    // A carriage return at the very end may be half of a line end.
    const frames = rest.replace(/\r\n|\r(?!$)/g, '\n').split('\n\n');
    rest = frames.pop()!;
    for (const frame of frames) {
      const parsed = parseFrame(frame);
      if (parsed) yield parsed;
    }
  }
}

function parseFrame(frame: string): StreamEvent | null {
  let event = 'message';
  const data: string[] = [];
  for (const line of frame.split('\n')) {
    const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === 'event') event = value;
    else if (field === 'data') data.push(value);
  }
  if (data.length === 0) return null;
  const text = data.join('\n');
  try {
    return { event, data: JSON.parse(text) };
  } catch {
    return { event, data: text };
  }
}

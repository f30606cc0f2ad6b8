/**
 * All commands of a build as one, for machines that take seconds to start. Each still runs in a shell of its own, and the
 * first that fails ends the build. Marks in the output, with a number nobody can guess, say where one ends and the
 * next begins; a build that prints marks of its own only garbles its own log.
 */

export function commandScript(commands: readonly string[], nonce: string): string {
  return commands
    .map((command, index) => `echo '${mark(nonce, index)}'\n/bin/sh -c ${quoted(command)} || exit $?`)
    .join('\n');
}

const mark = (nonce: string, index: number) => `::kiln:${nonce}:${index}::`;

/** One argument for sh, whatever is in it. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const MARK_END = /^(\d{1,4})::\n/;
const MAX_END = 8;

/** Takes the marks out of standard output; `on_command` hears of each. A mark may come in pieces. */
export function markFilter(
  nonce: string,
  write: (chunk: Buffer) => void,
  on_command: (index: number) => void,
): { write(chunk: Buffer): void; end(): void } {
  const start = Buffer.from(`::kiln:${nonce}:`);
  let held: Buffer = Buffer.alloc(0);
  const flush = (final: boolean) => {
    for (;;) {
      const at = held.indexOf(start);
      const found =
        at < 0
          ? null
          : MARK_END.exec(held.toString('latin1', at + start.length, at + start.length + MAX_END));
      if (found) {
        if (at > 0) write(held.subarray(0, at));
        on_command(Number(found[1]));
        held = held.subarray(at + start.length + found[0].length);
        continue;
      }
      const unfinished = at >= 0 && held.length - at < start.length + MAX_END;
      // What only looked like a mark is let go together with what stood before it.
      const keep = final
        ? held.length
        : unfinished
          ? at
          : at >= 0
            ? at + 1
            : held.length - partial(held, start);
      if (keep > 0) write(held.subarray(0, keep));
      held = held.subarray(keep);
      if (final || unfinished || at < 0) return;
    }
  };
  return {
    write(chunk) {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      flush(false);
    },
    end: () => flush(true),
  };
}

/** How many bytes at the end of `held` could be the beginning of `start`. */
function partial(held: Buffer, start: Buffer): number {
  for (let length = Math.min(held.length, start.length - 1); length > 0; length--)
    if (held.subarray(held.length - length).equals(start.subarray(0, length))) return length;
  return 0;
}

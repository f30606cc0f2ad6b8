import { SLAB_BYTES, type TarSummary, type TarTask, writeTar } from './tar-writer.ts';

/** A whole archive by one writer, in this thread. */
export function writeWhole(task: TarTask): TarSummary & { tar: Buffer } {
  const parts: Buffer[] = [];
  let slab = Buffer.alloc(0);
  const sink = {
    take: () => {
      slab = Buffer.alloc(SLAB_BYTES);
      return slab;
    },
    give: (length: number) => parts.push(slab.subarray(0, length)),
  };
  const summary = writeTar(task, { from: 0, to: task.entries.length }, sink);
  return { ...summary, tar: Buffer.concat(parts) };
}

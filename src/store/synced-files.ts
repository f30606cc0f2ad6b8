import { fsyncSync } from 'node:fs';
import { NodeFS } from '@electric-sql/pglite/nodefs';

/** What is used of the file system inside PGlite's WebAssembly module (Emscripten's NODEFS). */
interface WasmModule {
  NODEFS: { stream_ops: { fsync?: (stream: { nfd: number }) => number } };
}

/**
 * The folder of a database, on the disk when Postgres says so: PGlite runs with fsync turned off, and its file system
 * has none. A commit then waits for the disk (0.3 ms here), and a power cut takes nothing that was acknowledged.
 */
export class SyncedFiles extends NodeFS {
  override async init(...args: Parameters<NodeFS['init']>): ReturnType<NodeFS['init']> {
    const made = await super.init(...args);
    const prepare = (module: unknown) => {
      const { stream_ops } = (module as WasmModule).NODEFS;
      stream_ops.fsync ??= ({ nfd }) => {
        fsyncSync(nfd);
        return 0;
      };
    };
    const { preRun = [] } = made.emscriptenOpts;
    made.emscriptenOpts.preRun = [...(Array.isArray(preRun) ? preRun : [preRun]), prepare];
    return made;
  }
}

/** Instead of `-F` (no fsync). Not fdatasync, the usual way to sync the log: PGlite's does nothing. */
export function withSync(params: readonly string[]): string[] {
  return [...params.filter((param) => param !== '-F'), '-c', 'wal_sync_method=fsync'];
}

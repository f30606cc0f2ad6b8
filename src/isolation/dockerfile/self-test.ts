import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { ImageBuildSpec } from '../image-builder.ts';

const MIB = 1024 * 1024;

/** A build of the smallest Dockerfile, without network and cache. */
export function testSpec(dir: string): Omit<ImageBuildSpec, 'on_output'> {
  return {
    ...{ id: `selftest_${randomBytes(8).toString('hex')}`, deployment_id: 'selftest', context_dir: dir },
    ...{ dockerfile: 'Dockerfile', target: null, build_args: {}, secrets: {}, source_date_epoch: 0 },
    limits: {
      ...{ time_ms: 60_000, memory_bytes: 256 * MIB, processes: 64, disk_bytes: 64 * MIB, log_bytes: MIB },
      on_log_limit: 'kill',
    },
    ...{ network: { mode: 'none', allow: [] }, cache_key: null, out_file: join(dir, 'image.tar') },
    signal: new AbortController().signal,
  };
}

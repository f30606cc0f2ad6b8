import type { Command } from 'commander';
import type { Engine } from '../../engine/engine.ts';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { formatBytes } from '../output.ts';

const DOCTOR_TIMEOUT_MS = 2 * 60_000;

type DoctorReport = Awaited<ReturnType<Engine['doctor']>>;

export function define(command: Command, bind: Bind): void {
  examples(command, [
    ['kiln doctor', 'isolation, database, disk use by kind'],
    ['kiln doctor --json', 'as data'],
  ]);
  command.action(
    bind(async (cli) => {
      const client = await cli.connect();
      const { data } = await client.get<{ data: DoctorReport }>('/doctor', { timeout_ms: DOCTOR_TIMEOUT_MS });
      cli.out.result(data, () => {
        const mark = (ok: boolean) => (ok ? 'ok' : 'no');
        cli.out.fields([
          ['engine', `${data.engine_id}, node ${data.node}, ${data.platform}`],
          ['data folder', data.data_dir],
          ['database', `${data.database.kind}: ${data.database.ok ? 'ok' : data.database.detail}`],
          ['builds run in', data.isolation.builds],
          ['images run in', data.isolation.images ?? 'nothing here runs images'],
          ['Dockerfiles', data.isolation.dockerfiles ?? 'nothing here builds them'],
          ['base', data.base],
          ['disk free', formatBytes(data.disk_free_bytes)],
        ]);
        cli.out.line('');
        cli.out.table(
          ['DRIVER', 'FOR', 'WORKS', 'DETAIL', 'TO INSTALL'],
          data.isolation.drivers.map((one) => [
            one.name,
            one.job,
            one.in_use ? 'in use' : mark(one.ok),
            one.detail,
            one.ok ? '' : (one.install ?? ''),
          ]),
        );
        cli.out.line('');
        cli.out.table(
          ['DISK', 'SIZE', 'FILES'],
          data.disk.map((one) => [one.kind, formatBytes(one.bytes), String(one.files)]),
        );
      });
      return data.ok ? EXIT.ok : EXIT.engine;
    }),
  );
}

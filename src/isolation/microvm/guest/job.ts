import type { Limits } from '../../driver.ts';
import { quoted } from '../../shell.ts';

/** A file for the input drive: the job's own lie under `job/`. */
export interface JobFile {
  path: string;
  content: Buffer;
  mode?: number;
}

export interface Job {
  /** `workspace`: a build or exec, whose workspace goes in and out. `image`: an instance of an image. */
  kind: 'workspace' | 'image';
  /** What runs: `sh -c command`, or an image's own arguments. */
  run: { shell: string } | { args: readonly string[] };
  cwd: string;
  env: Record<string, string>;
  /** Numeric for `workspace`; the image's `User` for `image`. */
  user: string;
  network: 'none' | 'egress' | 'outbound';
  limits: Limits;
  /** Most bytes of each stream that leave the guest; null where the host reads and decides. */
  log_bytes: number | null;
  read_only_root: boolean;
  /** Whether what is on the cache drive is the job's; a waiting VM has a drive before anybody knows. */
  cache: boolean;
  host_name: string;
  /** Below HOME, for `workspace`. */
  home_files: readonly { path: string; text: string }[];
  /** By absolute path in the root file system: certificates. */
  root_files: readonly { path: string; content: Buffer }[];
}

/** The user that builds run as; the builder image has it as `app`. */
export const BUILD_USER = '1000:1000';
const SHELL = '/dev/.kiln/busybox';

/** Nothing of a job is on the kernel's command line: all of it goes in on the input drive. */
export function jobFiles(job: Job): JobFile[] {
  return [
    { path: 'job/config', content: Buffer.from(config(job)) },
    { path: 'job/run', content: Buffer.from(runScript(job)), mode: 0o755 },
    ...job.home_files.map((one) => ({ path: `job/home/${one.path}`, content: Buffer.from(one.text) })),
    ...job.root_files.map((one) => ({ path: `job/files${one.path}`, content: one.content })),
  ];
}

function config(job: Job): string {
  const [uid = '', gid = ''] = job.kind === 'workspace' ? job.user.split(':') : ['', ''];
  const whole = (n: number) => String(Math.min(Math.ceil(n), Number.MAX_SAFE_INTEGER));
  const settings: Record<string, string> = {
    kind: job.kind,
    uid,
    gid,
    image_user: job.kind === 'image' ? job.user || '0' : '',
    network: job.network,
    processes: whole(job.limits.processes),
    memory_bytes: whole(job.limits.memory_bytes),
    disk_bytes: whole(job.limits.disk_bytes),
    log_bytes: whole(job.log_bytes ?? 0),
    read_only_root: job.read_only_root ? '1' : '0',
    use_cache: job.cache ? '1' : '0',
    host_name: job.host_name,
  };
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${quoted(value)}\n`)
    .join('');
}

/** Through `env -i`: names and values that mean something to a shell stay what they are. */
function runScript(job: Job): string {
  const env = Object.entries(job.env).map(([name, value]) => quoted(`${name}=${value}`));
  // The agent has looked it up in the image's accounts, as container engines do.
  if (!('HOME' in job.env)) env.push('"HOME=$KILN_HOME"');
  const command = 'shell' in job.run ? ['/bin/sh', '-c', job.run.shell] : job.run.args;
  const words = [...env, ...command.map(quoted)].join(' ');
  return `cd ${quoted(job.cwd)} || exit 126\nexec ${SHELL} env -i ${words}\n`;
}

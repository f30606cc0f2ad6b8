/**
 * The fake (fake.ts) as programs: `firecracker` and `jailer` as Kiln starts them. The jailer checks its command line,
 * and "changes root" by looking up absolute paths below the jail. The guest is a script of a few things a guest does.
 * For validation only; nothing is shut in here.
 */
import { chmodSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Fault, makeFake } from './fake.ts';
import { loadApiDocument } from './openapi.ts';

export interface Guest {
  console?: string;
  /** Bytes of noise on the console. */
  noise_bytes?: number;
  /** What it says on ports of the host, by port; what comes back is echoed to the console. */
  calls?: Record<string, string>;
  /** Ports of its own that it answers on, with what. */
  listens?: Record<string, string>;
  exit?: { after_ms: number; code: number };
}

export interface ProgramConfig {
  faults?: Fault[];
  guest?: Guest;
  version?: string;
  /** Calls and violations are written here at every change. */
  report: string;
}

/** Writes the two programs into a folder. */
export function writePrograms(dir: string, config: ProgramConfig): { binary: string; jailer: string } {
  const config_path = join(dir, 'fake.json');
  writeFileSync(config_path, JSON.stringify(config));
  const write = (name: string) => {
    const path = join(dir, name);
    const words = [process.execPath, import.meta.filename, config_path, name].map((word) => `'${word}'`);
    writeFileSync(path, `#!/bin/sh\nexec ${words.join(' ')} "$@"\n`);
    chmodSync(path, 0o755);
    return path;
  };
  return { binary: write('firecracker'), jailer: write('jailer') };
}

const JAILER_OPTIONS = Object.fromEntries(
  ['id', 'exec-file', 'uid', 'gid', 'chroot-base-dir', 'netns', 'cgroup-version', 'parent-cgroup', 'cgroup']
    .concat('resource-limit')
    .map((name) => [name, { type: 'string' as const, multiple: true }]),
);

function asJailer(args: string[], config: ProgramConfig): void {
  const end = args.indexOf('--');
  const values = parseArgs({ args: args.slice(0, end), options: JAILER_OPTIONS }).values as Record<
    string,
    string[] | undefined
  >;
  const one = (name: string) => values[name]?.[0] ?? '';
  const [id, exec_file, base] = [one('id'), one('exec-file'), one('chroot-base-dir')];
  if (!/^[A-Za-z0-9-]{1,64}$/.test(id)) throw new Error('Invalid instance ID');
  if (!basename(exec_file).includes('firecracker')) throw new Error('Invalid exec file name');
  if (!existsSync(base)) throw new Error('Failed to canonicalize the chroot base dir');
  for (const number of [one('uid'), one('gid')])
    if (!/^\d+$/.test(number)) throw new Error('Invalid uid or gid');
  for (const limit of values['resource-limit'] ?? [])
    if (!/^(fsize|no-file)=\d+$/.test(limit)) throw new Error(`Invalid resource limit ${limit}`);
  for (const setting of values.cgroup ?? [])
    if (setting.split('=').length !== 2) throw new Error(`Invalid cgroup ${setting}`);
  const root = join(base, basename(exec_file), id, 'root');
  if (!existsSync(root)) throw new Error(`nobody has filled ${root}`);
  process.chdir(root);
  asFirecracker([...args.slice(end + 1), '--id', id], config, root);
}

function asFirecracker(args: string[], config: ProgramConfig, root: string): void {
  const { values } = parseArgs({
    args,
    options: {
      ...{ 'api-sock': { type: 'string' }, id: { type: 'string' } },
      ...{ 'log-path': { type: 'string' }, level: { type: 'string' } },
    },
  });
  // In the jail, which is the working folder: a socket's whole path may be too long for the kernel.
  const host = (path: string) => path.replace(/^\//, '');
  const log = host(values['log-path']!);
  if (!existsSync(log)) throw new Error(`no log file ${log}`);
  const guest = config.guest ?? {};
  const fake = makeFake({
    ...{ document: loadApiDocument(), id: values.id!, root, cwd: process.cwd(), faults: config.faults ?? [] },
    on_start: (vm) => runGuest(guest, host(String(vm.get('/vsock')?.uds_path))),
    on_call: report,
    on_resume: () => console.log('resumed'),
    die: () => {
      writeFileSync(log, '[fake:ERROR] it was told to die\n', { flag: 'a' });
      process.exit(148);
    },
  });
  // In one piece, for the test may look at any time.
  function report(): void {
    const { calls, violations, config: vm } = fake;
    writeFileSync(`${config.report}.new`, JSON.stringify({ calls, violations, config: [...vm] }));
    renameSync(`${config.report}.new`, config.report);
  }
  fake.server.listen(host(values['api-sock']!));
}

function runGuest(guest: Guest, vsock: string): void {
  console.log(guest.console ?? 'Linux version 0.0 (fake)');
  if (guest.noise_bytes) process.stdout.write(Buffer.alloc(guest.noise_bytes, 'noise\n'));
  rmSync(vsock, { force: true });
  createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (chunk) => {
      const port = /^CONNECT (\d+)\n$/.exec(chunk.toString())?.[1] ?? '';
      const answer = guest.listens?.[port];
      if (answer === undefined) return socket.destroy();
      socket.write('OK 1073741824\n');
      socket.once('data', (question) => socket.end(`${answer} ${question}`));
      socket.on('end', () => socket.destroy());
    });
  }).listen(vsock);
  for (const [port, text] of Object.entries(guest.calls ?? {})) {
    const socket = connect(`${vsock}_${port}`);
    socket.on('error', (error) => console.log(`port ${port}: ${error.message}`));
    socket.on('data', (chunk) => console.log(`port ${port}: ${chunk}`));
    socket.write(text);
  }
  const { exit } = guest;
  if (exit) setTimeout(() => process.exit(exit.code), exit.after_ms);
}

if (import.meta.main) {
  const [config_path, name, ...args] = process.argv.slice(2) as [string, string, ...string[]];
  const config = JSON.parse(readFileSync(config_path, 'utf8')) as ProgramConfig;
  try {
    if (args[0] === '--version')
      console.log(`${name === 'jailer' ? 'Jailer' : 'Firecracker'} ${config.version ?? 'v1.0.0-fake'}`);
    else if (name === 'jailer') asJailer(args, config);
    else asFirecracker(args, config, '');
  } catch (error) {
    console.error(`Error: ${(error as Error).message}`);
    process.exit(1);
  }
}

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Job, jobFiles } from './job.ts';
import { type GuestEvent, makeEventReader, parseEvent, readPorts } from './protocol.ts';

const OVER =
  '{"event":"over","reason":"exited","code":3,"stdout_bytes":1,"stderr_bytes":0,"memory_bytes":5,"processes":2,"cpu_us":7,"disk_bytes":9}';

test('events: split anywhere, and nothing that a hostile guest makes up', () => {
  const seen: GuestEvent[] = [];
  const read = makeEventReader((event) => seen.push(event));
  const text = `{"event":"booted"}\nnoise\n${OVER}\n{"event":"done"}\n`;
  for (const char of text) read(Buffer.from(char));
  assert.deepEqual(
    seen.map(({ event }) => event),
    ['booted', 'over', 'done'],
  );
  for (const line of [
    '',
    'null',
    '[]',
    '"booted"',
    '{"event":"reboot"}',
    OVER.replace('"exited"', '"killed"'),
    OVER.replace('"code":3', '"code":-1'),
    OVER.replace('"code":3', '"code":"3"'),
    OVER.replace('"stdout_bytes":1', '"stdout_bytes":1e300'),
    '{"event":"output","bytes":1}',
    '{"event":"limit","reason":"exited"}',
  ])
    assert.equal(parseEvent(line), null, line);
  assert.deepEqual(parseEvent('{"event":"broken","step":{"a":1}}'), {
    event: 'broken',
    step: '[object Object]',
  });
});

test('events: a line without end does not fill the memory', () => {
  const seen: GuestEvent[] = [];
  const read = makeEventReader((event) => seen.push(event));
  for (let i = 0; i < 64; i++) read(Buffer.alloc(1 << 16, 'x'));
  read(Buffer.from('\n{"event":"done"}\n'));
  assert.deepEqual(seen, [{ event: 'done' }]);
});

test('ports as the kernel prints them', () => {
  const rows = [
    '0100007F:0BB8',
    '00000000000000000000000000000000:0050',
    '0100007F:0BB8',
    'x',
    '0100007F:XXXX',
  ];
  assert.deepEqual(readPorts(rows), [
    { address: '::', port: 80 },
    { address: '127.0.0.1', port: 3000 },
  ]);
});

const JOB: Job = {
  ...{ kind: 'workspace', run: { shell: 'true' }, cwd: '/tmp', env: {}, user: '1000:1000', network: 'none' },
  limits: {
    time_ms: null,
    memory_bytes: 1.5,
    processes: 2,
    disk_bytes: 3,
    log_bytes: 4,
    on_log_limit: 'drop',
  },
  ...{
    log_bytes: null,
    read_only_root: false,
    cache: false,
    host_name: "a'b",
    home_files: [],
    root_files: [],
  },
};
const textOf = (job: Job, path: string) =>
  jobFiles(job)
    .find((one) => one.path === path)!
    .content.toString();

test('a job: names, values and commands mean nothing to the shell around them', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'kiln-job-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const env = { HOME: '/x', TRICKY: `a\nb "$HOME" '\\'' \`id\``, IFS: 'x', OPTIND: 'no number', 'a.b': '1' };
  const job: Job = { ...JOB, run: { args: ['env', '-0'] }, env };
  const script = textOf(job, 'job/run').replace('/dev/.kiln/busybox ', '');
  writeFileSync(join(dir, 'run'), script);
  const seen = execFileSync('/bin/sh', [join(dir, 'run')], { env: { PATH: process.env.PATH, SECRET: '1' } });
  assert.deepEqual(
    seen.toString().split('\0').slice(0, -1),
    Object.entries(env).map(([name, value]) => `${name}=${value}`),
  );
  writeFileSync(join(dir, 'config'), textOf(job, 'job/config'));
  const config = execFileSync('/bin/sh', [
    '-c',
    '. "$1"; echo "$host_name $uid $gid $memory_bytes $log_bytes"',
    'sh',
    join(dir, 'config'),
  ]);
  assert.equal(config.toString(), "a'b 1000 1000 2 0\n");
});

test('a job of an image: its user is looked up inside, HOME comes from there', () => {
  const job: Job = { ...JOB, kind: 'image', user: 'node:www', run: { args: ['a b', '-c'] } };
  assert.match(textOf(job, 'job/config'), /^uid=''\ngid=''\nimage_user='node:www'$/m);
  assert.match(textOf(job, 'job/run'), /env -i "HOME=\$KILN_HOME" 'a b' '-c'\n$/);
});

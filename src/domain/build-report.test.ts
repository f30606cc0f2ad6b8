import assert from 'node:assert/strict';
import { it } from 'node:test';
import { describeReport, mergeReports } from './build-report.ts';

const host = (name: string, bytes_in: number, refused: string | null = null) => {
  return { host: name, port: 443, connections: 1, refused, bytes_in, bytes_out: 1 };
};

it('merges what the machines of a build say', () => {
  const report = mergeReports([
    {
      peak_memory_bytes: 5_000_000,
      cpu_ms: 900,
      disk_bytes: 1_000_000,
      hosts: [host('a', 10), host('b', 5, 'private')],
    },
    {
      peak_memory_bytes: 212_000_000,
      cpu_ms: 100,
      disk_bytes: null,
      hosts: [host('a', 20_000_000), host('c', 15)],
    },
    { peak_memory_bytes: 1 },
  ]);
  assert.deepEqual(report, {
    ...{ peak_memory_bytes: 212_000_000, cpu_ms: 1000, disk_bytes: 1_000_000 },
    hosts: [
      { ...host('a', 20_000_010), connections: 2, bytes_out: 2 },
      host('c', 15),
      host('b', 5, 'private'),
    ],
    ...{ bytes_in: 20_000_030, bytes_out: 4 },
  });
  assert.equal(
    describeReport(report),
    'used at most 212 MB of memory, 1.0 s of processor time, 1.0 MB of disk, 20 MB from 2 hosts, 1 host refused',
  );
});

it('says null for what no machine knows', () => {
  const report = mergeReports([{ peak_memory_bytes: 1 }, { peak_memory_bytes: 2, cpu_ms: null }]);
  assert.deepEqual([report.cpu_ms, report.disk_bytes, report.hosts], [null, null, []]);
  assert.equal(describeReport(report), 'used at most 0.0 MB of memory');
  assert.equal(mergeReports([]).peak_memory_bytes, 0);
});

it('lists a limited number of hosts and still counts all bytes', () => {
  const report = mergeReports([
    { peak_memory_bytes: 0, hosts: Array.from({ length: 500 }, (_, n) => host(`h${n}`, 1)) },
  ]);
  assert.deepEqual([report.hosts.length, report.bytes_in], [200, 500]);
});

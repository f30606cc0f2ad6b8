import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { canonical, ownAddresses, type Reach, reachOf } from './address.ts';

const NOBODY = new Set<string>();
const reach = (address: string) => reachOf(address, NOBODY);
const byte = fc.integer({ min: 0, max: 255 });
const group = fc.integer({ min: 0, max: 0xffff });
const hex = (numbers: readonly number[]) => numbers.map((n) => n.toString(16)).join(':');

/** The same ranges, written as arithmetic on the four numbers. */
function expected([a, b, c, d]: readonly number[]): Reach {
  if (a === 0 || a === 127) return 'local';
  if ((a === 169 && b === 254) || (a === 168 && b === 63 && c === 129 && d === 16)) return 'link_local';
  if (a === 10 || (a === 172 && b! >= 16 && b! < 32) || (a === 192 && b === 168)) return 'private';
  if ((a === 100 && b! >= 64 && b! < 128) || (a === 198 && (b === 18 || b === 19))) return 'private';
  if (a === 192 && ((b === 0 && c === 0) || (b === 88 && c === 99))) return 'private';
  return a! >= 224 ? 'never' : 'public';
}

/** Random addresses seldom hit a range: mix in its first numbers. */
const ipv4 = fc
  .tuple(
    fc.constantFrom(
      [],
      [10],
      [127],
      [0],
      [169, 254],
      [172],
      [192, 168],
      [192, 0, 0],
      [100],
      [198, 18],
      [224],
    ),
    fc.tuple(byte, byte, byte, byte),
  )
  .map(([head, rest]) => [...head, ...rest].slice(0, 4));

describe('reach of an address', () => {
  it('is right for every IPv4 address', () => {
    fc.assert(
      fc.property(ipv4, (bytes) => {
        assert.equal(reach(bytes.join('.')), expected(bytes));
      }),
      { numRuns: 3000 },
    );
  });

  it('is that of the IPv4 address which an IPv6 address carries, however it is written', () => {
    fc.assert(
      fc.property(ipv4, (bytes) => {
        const [a, b, c, d] = bytes as [number, number, number, number];
        const tail = hex([a * 256 + b, c * 256 + d]);
        const dotted = bytes.join('.');
        for (const text of [
          `::ffff:${dotted}`,
          `::ffff:${tail}`,
          `0:0:0:0:0:FFFF:${tail}`,
          `64:ff9b::${tail}`,
        ])
          assert.equal(reach(text), expected(bytes), text);
        assert.equal(reach(`2002:${tail}::1`), expected(bytes));
        assert.equal(reach(`[::ffff:${dotted}]`), expected(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('is public in IPv6 only for what is assigned to be', () => {
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
        const first = groups[0]!;
        if (first === 0x64 || first === 0 || first === 0x2002 || first === 0x2001) return;
        const found = reach(hex(groups));
        if (first >> 13 === 1) assert.equal(found, 'public');
        else if ((first & 0xfe00) === 0xfc00) assert.equal(found, 'private');
        else if ((first & 0xffc0) === 0xfe80) assert.equal(found, 'link_local');
        else assert.notEqual(found, 'public');
      }),
      { numRuns: 3000 },
    );
  });

  it('knows the special ones', () => {
    const cases: [string, Reach][] = [
      ...([
        ['::', 'local'],
        ['::1', 'local'],
        ['0:0:0:0:0:0:0:1', 'local'],
        ['fe80::1%eth0', 'link_local'],
      ] as [string, Reach][]),
      ...([
        ['fd00:ec2::254', 'private'],
        ['fec0::1', 'private'],
        ['2001:0:1::1', 'private'],
      ] as [string, Reach][]),
      ...([
        ['ff02::1', 'never'],
        ['255.255.255.255', 'never'],
        ['100.100.100.200', 'private'],
      ] as [string, Reach][]),
      ...([
        ['2606:4700::1111', 'public'],
        ['1.1.1.1', 'public'],
        ['203.0.113.80', 'public'],
      ] as [string, Reach][]),
      ...([
        ['localhost', 'never'],
        ['', 'never'],
        ['127.1', 'never'],
        ['0x7f000001', 'never'],
      ] as [string, Reach][]),
    ];
    for (const [address, wanted] of cases) assert.equal(reach(address), wanted, address);
  });

  it('takes every address of this host for this host', () => {
    for (const address of ownAddresses()) assert.equal(reachOf(address), 'local', address);
    assert.equal(reachOf('8.8.8.8', new Set(['8.8.8.8'])), 'local');
    assert.equal(canonical('[2001:DB8:0::0001]'), '2001:db8::1');
  });
});

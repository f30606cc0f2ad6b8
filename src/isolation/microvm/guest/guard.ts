import { ELF_MACHINES, elfProgram } from '../../elf.ts';

/**
 * What stands between an instance and its host, whoever its image runs as: a program of the guest that gives the
 * instance's control group a filter for what it sends, and takes capabilities away for good. Routes do not suffice: a
 * socket that is bound to a card goes around them (the kernel then takes every address to be on its link), and so does
 * a broadcast, and QEMU hands both to the host's loopback. The guest's busybox has no tool for either.
 */

/** What Docker leaves to root, without what makes devices and raw packets. */
const KEPT = {
  chown: 0,
  dac_override: 1,
  fowner: 3,
  fsetid: 4,
  kill: 5,
  setgid: 6,
  setuid: 7,
  setpcap: 8,
  net_bind_service: 10,
  sys_chroot: 18,
  audit_write: 29,
  setfcap: 31,
};
const REFUSED = '[kiln] the rights of this instance could not be limited, so it was not started\n';

/** Made from guard.s, which says what it does, by `as` and `objcopy -O binary` (guard.test.ts). */
export const GUARD_CODE = [
  '4889e5488b7d10be0000090031d2b8020000000f0585c00f88d70000004189c44883ec504889e731c0b90a000000f348ab',
  'c70424080000008b05ed00000089442404488d0dea00000048894c2408488d0cc148894c2410c744244401000000bf0500',
  '00004889e6ba48000000b8410100000f0585c0787d4489242489442404c744240801000000c744240c00000000bf080000',
  '004889e6ba10000000b8410100000f0585c0784dbb3f000000488b0570000000480fa3d8721fbf1800000089de31d24531',
  'd24531c0b89d0000000f0585c0740583f8ea751cffcb79d0488b7d18488d7518488b4500488d54c510b83b0000000f05bf',
  '02000000488d35330000008b0525000000488d34c68b151f000000b8010000000f05bf7e000000b83c0000000f05',
].join('');

export function guardProgram(): Buffer {
  const filter = egressFilter();
  const data = Buffer.alloc(16);
  data.writeBigUInt64LE(
    Object.values(KEPT).reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n),
    0,
  );
  data.writeUInt32LE(filter.length / 8, 8);
  data.writeUInt32LE(REFUSED.length, 12);
  const body = Buffer.concat([Buffer.from(GUARD_CODE, 'hex'), data, filter, Buffer.from(`${REFUSED}\0`)]);
  return elfProgram(ELF_MACHINES.x64, body);
}

/** One instruction of the kernel's BPF (Documentation/bpf/standardization/instruction-set.rst). */
interface Step {
  op: number;
  dst?: number;
  src?: number;
  off?: number;
  imm?: number;
  /** Where a jump goes. */
  to?: 'pass' | 'drop';
}

const load = (dst: number, src: number, off: number, bytes: 1 | 2 | 4): Step => ({
  op: { 1: 0x71, 2: 0x69, 4: 0x61 }[bytes],
  dst,
  src,
  off,
});
const copy = (dst: number, src: number): Step => ({ op: 0xbf, dst, src });
const set = (dst: number, imm: number): Step => ({ op: 0xb7, dst, imm });
const add = (dst: number, imm: number): Step => ({ op: 0x07, dst, imm });
const shiftRight = (dst: number, imm: number): Step => ({ op: 0x77, dst, imm });
const and = (dst: number, imm: number): Step => ({ op: 0x57, dst, imm });
const bigEndian = (dst: number): Step => ({ op: 0xdc, dst, imm: 32 });
const ifEqual = (dst: number, imm: number, to: Step['to']): Step => ({ op: 0x15, dst, imm, to });
const ifNot = (dst: number, imm: number, to: Step['to']): Step => ({ op: 0x55, dst, imm, to });
const ifGreater = (dst: number, src: number, to: Step['to']): Step => ({ op: 0x2d, dst, src, to });
const END: Step = { op: 0x95 };

/** Fields of the kernel's `struct __sk_buff`. */
const SKB = { protocol: 16, ifindex: 40, data: 76, data_end: 80 };
const LOOPBACK_CARD = 1;
/** As two and four bytes of the network are read on this processor. */
const IPV4 = 0x0008;
const PORT_53 = 0x3500;
const OFFSET_OF_FRAGMENT = 0xff1f;

/**
 * Everything within the machine passes. Else IPv4 only, and neither to link-local addresses, where metadata services
 * are, nor to where QEMU has the host itself: 0/8, 127/8, broadcasts, and its network on the outer card, of which
 * only names may be asked for (steps.sh).
 */
export function egressFilter(): Buffer {
  const start: Step[] = [
    load(2, 1, SKB.ifindex, 4),
    ifEqual(2, LOOPBACK_CARD, 'pass'),
    load(2, 1, SKB.protocol, 4),
    ifNot(2, IPV4, 'drop'),
    // r2: the packet, from its IP header on; r3: its end; r5: the destination
    ...[load(2, 1, SKB.data, 4), load(3, 1, SKB.data_end, 4)],
    ...[copy(4, 2), add(4, 20), ifGreater(4, 3, 'drop')],
    ...[load(5, 2, 16, 4), bigEndian(5)],
    ...[copy(0, 5), shiftRight(0, 24)],
    ...[ifEqual(0, 0, 'drop'), ifEqual(0, 127, 'drop'), ifEqual(0, 255, 'drop')],
    ...[copy(0, 5), shiftRight(0, 16), ifEqual(0, 0xa9fe, 'drop')],
    ...[copy(0, 5), shiftRight(0, 8), ifNot(0, 0x0a0003, 'pass')],
  ];
  const names: Step[] = [
    ifNot(5, 0x0a000303, 'drop'),
    // No options before the ports, and ports there at all.
    ...[load(0, 2, 0, 1), ifNot(0, 0x45, 'drop')],
    ...[load(0, 2, 6, 2), and(0, OFFSET_OF_FRAGMENT), ifNot(0, 0, 'drop')],
    ...[copy(4, 2), add(4, 24), ifGreater(4, 3, 'drop')],
    ...[load(0, 2, 22, 2), ifNot(0, PORT_53, 'drop')],
  ];
  return assemble([...start, ...names], { pass: [set(0, 1), END], drop: [set(0, 0), END] });
}

function assemble(begin: Step[], ends: { pass: Step[]; drop: Step[] }): Buffer {
  const steps = [...begin, ...ends.pass, ...ends.drop];
  const places = {
    pass: begin.length,
    drop: steps.length - ends.drop.length,
  };
  return Buffer.concat(
    steps.map(({ op, dst = 0, src = 0, off = 0, imm = 0, to }, at) => {
      const bytes = Buffer.alloc(8);
      bytes[0] = op;
      bytes[1] = (src << 4) | dst;
      bytes.writeInt16LE(to === undefined ? off : places[to] - at - 1, 2);
      bytes.writeInt32LE(imm, 4);
      return bytes;
    }),
  );
}

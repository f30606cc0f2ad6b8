/** A static program as a file: one segment that is read and executed, entered at its first byte. For Linux, 64 bits. */
export const ELF_MACHINES = { x64: 62, arm64: 183 } as const;

export function elfProgram(machine: number, body: Buffer): Buffer {
  const size = 64 + 56 + body.length;
  const head = Buffer.alloc(64 + 56);
  Buffer.from('7f454c46020101', 'hex').copy(head);
  head.writeUInt16LE(2, 16); // executable
  head.writeUInt16LE(machine, 18);
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(0x400078n, 24); // entry: right behind the headers
  head.writeBigUInt64LE(64n, 32); // program header
  head.writeUInt16LE(64, 52);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(1, 56);
  head.writeUInt16LE(64, 58);
  head.writeUInt32LE(1, 64); // load
  head.writeUInt32LE(5, 68); // read, execute
  head.writeBigUInt64LE(0x400000n, 80);
  head.writeBigUInt64LE(0x400000n, 88);
  head.writeBigUInt64LE(BigInt(size), 96);
  head.writeBigUInt64LE(BigInt(size), 104);
  head.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([head, body]);
}

import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import { LZ4_LEGACY, unpackLz4 } from './lz4.ts';

/**
 * Firecracker boots an uncompressed ELF kernel; distributions ship a bzImage: a boot sector, a loader, and that ELF,
 * compressed. The header says where (Documentation/arch/x86/boot.rst, protocol 2.08 and later).
 */
const ELF = Buffer.from('\x7fELF', 'latin1');
const MAX_KERNEL_BYTES = 512 * 1024 * 1024;
const HEADER = {
  setup_sectors: 0x1f1,
  magic: 0x202,
  version: 0x206,
  payload_offset: 0x248,
  payload_length: 0x24c,
};
const HEADER_BYTES = 0x250;
const SECTOR_BYTES = 512;

/** Path of an ELF kernel: `kernel` itself, or what is in it, unpacked once into `cache_dir`. */
export async function elfKernel(kernel: string, cache_dir: string): Promise<string> {
  if (await isElf(kernel)) return kernel;
  const image = await readFile(kernel);
  const target = join(cache_dir, `vmlinux-${createHash('sha256').update(image).digest('hex')}`);
  if (await isElf(target).catch(() => false)) return target;
  const elf = await unpackKernel(image);
  await mkdir(cache_dir, { recursive: true });
  const temporary = `${target}.${randomBytes(6).toString('hex')}`;
  try {
    // Jailed VMs of other users link it (jail.ts).
    await writeFile(temporary, elf, { mode: 0o644, flag: 'wx' });
    await rename(temporary, target);
  } finally {
    await rm(temporary, { force: true });
  }
  return target;
}

async function isElf(path: string): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return buffer.equals(ELF);
  } finally {
    await file.close();
  }
}

/** The ELF inside a bzImage. */
export async function unpackKernel(image: Buffer): Promise<Buffer> {
  const magic = image.length < HEADER_BYTES ? '' : image.toString('latin1', HEADER.magic, HEADER.magic + 4);
  if (magic !== 'HdrS') throw new Error('the kernel is neither an ELF file nor a bzImage');
  const version = image.readUInt16LE(HEADER.version);
  if (version < 0x208)
    throw new Error(`the kernel's boot protocol ${version.toString(16)} is older than 2.08`);
  const sectors = image[HEADER.setup_sectors] || 4;
  const start = (sectors + 1) * SECTOR_BYTES + image.readUInt32LE(HEADER.payload_offset);
  const end = start + image.readUInt32LE(HEADER.payload_length);
  if (end > image.length) throw new Error('the kernel image is cut short');
  const elf = await decompress(image.subarray(start, end));
  if (!elf.subarray(0, 4).equals(ELF)) throw new Error('what is in the kernel image is no ELF file');
  return elf;
}

/** The kernel's build appends the unpacked length (4 bytes) to what xz and zstd wrote. */
async function decompress(payload: Buffer): Promise<Buffer> {
  const options = { maxOutputLength: MAX_KERNEL_BYTES };
  if (payload.subarray(0, 4).equals(ELF)) return payload;
  if (payload.readUInt32LE(0) === LZ4_LEGACY) return unpackLz4(payload, MAX_KERNEL_BYTES);
  if (payload.readUInt16BE(0) === 0x1f8b) return await promisify(gunzip)(payload, options);
  if (payload.readUInt32LE(0) === 0xfd2fb528)
    return await promisify(zstdDecompress)(payload.subarray(0, -4), options);
  if (payload.subarray(0, 6).equals(Buffer.from('\xfd7zXZ\0', 'latin1')))
    return await unxz(payload.subarray(0, -4));
  throw new Error(
    `the kernel is compressed in a way that is not known here (${payload.toString('hex', 0, 6)}): give its vmlinux`,
  );
}

async function unxz(payload: Buffer): Promise<Buffer> {
  const run = promisify(execFile)('xz', ['--decompress', '--stdout', '--single-stream'], {
    ...{ encoding: 'buffer' as const, maxBuffer: MAX_KERNEL_BYTES, timeout: 60_000 },
  });
  run.child.stdin?.on('error', () => undefined).end(payload);
  try {
    return (await run).stdout;
  } catch (error) {
    const absent = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (absent)
      throw new Error('the kernel is compressed with xz, which is not installed (apt install xz-utils)');
    throw new Error(`the kernel could not be unpacked: ${(error as Error).message}`);
  }
}

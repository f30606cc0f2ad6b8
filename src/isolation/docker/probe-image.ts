import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { MEDIA_TYPES } from '../../domain/image.ts';
import { ELF_MACHINES, elfProgram } from '../elf.ts';
import type { MachineImage } from '../image.ts';

/**
 * The smallest image that does something: one static program that writes `works` and ends. Self-tests need an image
 * to run and there is none to be counted on; it is made here, byte by byte, for the processors Kiln runs on.
 */
export const PROBE_ANSWER = 'works\n';

/** write(1, text, 6); exit(0) */
const CODE: Record<string, { machine: number; code: string }> = {
  // mov eax,1; mov edi,1; lea rsi,[rip+16]; mov edx,6; syscall; mov eax,60; xor edi,edi; syscall
  x64: {
    machine: ELF_MACHINES.x64,
    code: 'b801000000bf01000000488d3510000000ba060000000f05b83c00000031ff0f05',
  },
  // mov x0,1; adr x1,.+28; mov x2,6; mov x8,64; svc 0; mov x0,0; mov x8,93; svc 0
  arm64: {
    machine: ELF_MACHINES.arm64,
    code: '200080d2e1000010c20080d2080880d2010000d4000080d2a80b80d2010000d4',
  },
};

/** Null for a processor that is not in the table. */
export function probeProgram(arch: string): Buffer | null {
  const known = CODE[arch];
  if (known === undefined) return null;
  const body = Buffer.concat([Buffer.from(known.code, 'hex'), Buffer.from(PROBE_ANSWER)]);
  return elfProgram(known.machine, body);
}

export function probeImage(arch: string): MachineImage | null {
  const program = probeProgram(arch);
  if (program === null) return null;
  const layer = tar([{ name: 'works', bytes: program, mode: 0o755 }]);
  const config = {
    architecture: arch === 'x64' ? 'amd64' : arch,
    os: 'linux',
    config: { Cmd: ['/works'], WorkingDir: '/' },
    rootfs: { type: 'layers' as const, diff_ids: [digest(layer)] },
  };
  const config_bytes = Buffer.from(JSON.stringify(config));
  const manifest = {
    schemaVersion: 2 as const,
    mediaType: MEDIA_TYPES.manifest,
    config: { mediaType: MEDIA_TYPES.config, digest: digest(config_bytes), size: config_bytes.length },
    layers: [{ mediaType: MEDIA_TYPES.layer_tar, digest: digest(layer), size: layer.length }],
  };
  const names = [{ Config: 'config.json', RepoTags: null, Layers: ['layer.tar'] }];
  const archive = tar([
    { name: 'config.json', bytes: config_bytes, mode: 0o644 },
    { name: 'layer.tar', bytes: layer, mode: 0o644 },
    { name: 'manifest.json', bytes: Buffer.from(JSON.stringify(names)), mode: 0o644 },
  ]);
  const blobs = new Map([
    [manifest.config.digest, config_bytes],
    [manifest.layers[0]!.digest, layer],
  ]);
  return {
    digest: digest(Buffer.from(JSON.stringify(manifest))),
    manifest,
    config,
    async blob(of) {
      const found = blobs.get(of);
      if (found === undefined) throw new Error(`${of} is no blob of the probe image`);
      return Readable.from([found]);
    },
    dockerArchive: () => Readable.from([archive], { objectMode: false }),
    squashfs: () => Promise.reject(new Error('the probe image is for containers only')),
  };
}

function digest(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A plain ustar archive of a few files. */
export function tar(files: readonly { name: string; bytes: Buffer; mode: number }[]): Buffer {
  const parts = files.flatMap(({ name, bytes, mode }) => {
    const head = Buffer.alloc(512);
    head.write(name, 0, 100, 'utf8');
    const octal = (value: number, at: number, width: number) =>
      head.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, 'latin1');
    octal(mode, 100, 8);
    octal(0, 108, 8);
    octal(0, 116, 8);
    octal(bytes.length, 124, 12);
    octal(0, 136, 12);
    head.write('        0', 148, 'latin1');
    head.write('ustar\x0000', 257, 'latin1');
    octal(
      head.reduce((sum, byte) => sum + byte, 0),
      148,
      7,
    );
    return [head, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
  });
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { type Bind, type Cli, examples } from '../cli.ts';
import type { Client } from '../client.ts';
import { badInput, EXIT, type ExitCode } from '../exit.ts';
import { findVersionAnywhere } from '../find.ts';
import { formatBytes } from '../output.ts';
import { Progress } from '../progress.ts';

/** Layers of a gigabyte over a slow line. */
const PUSH_TIMEOUT_MS = 60 * 60_000;

export function define(command: Command, bind: Bind): void {
  command.description(
    'The OCI image that a version’s release is: those of Dockerfiles, and of builds in docker or microVMs.',
  );
  examples(command, [
    [
      'kiln image push ver_01k… registry.example.com/team/shop:1',
      'to where the engine may push (--push-registries)',
    ],
    ['kiln image export ver_01k… shop.tar', 'an image layout, for skopeo or docker load'],
  ]);
  definePush(command, bind);
  defineExport(command, bind);
}

function definePush(image: Command, bind: Bind): void {
  const command = image
    .command('push')
    .description('Push the image of a version to a registry. What is there already is not sent again.')
    .argument('<version>', 'ver_…')
    .argument('<reference>', 'host/repository:tag')
    .option('--username <name>', 'who you are to the registry')
    .option('--password-stdin', 'read the password or token from standard input');
  examples(command, [
    ['kiln image push ver_01k… localhost:5000/shop:1', 'prints the reference by digest'],
    ['… --username ada --password-stdin < token', 'with credentials; they are kept nowhere'],
  ]);
  command.action(bind(push));
}

async function push(
  cli: Cli,
  id: string,
  reference: string,
  o: { username?: string; passwordStdin?: boolean },
): Promise<ExitCode> {
  if (o.passwordStdin && !o.username)
    throw badInput(
      'A password without a user.',
      'Give --username as well (many registries take any with a token).',
    );
  const password = o.passwordStdin ? (await text(cli.stdin)).trimEnd() : null;
  const client = await cli.connect();
  const release_id = await releaseOf(client, id);
  const progress = new Progress(cli.out);
  try {
    progress.begin('push');
    const { data } = await client.post('/releases/{release_id}/push', {
      params: { release_id },
      body: { reference, username: o.username ?? null, password },
      timeout_ms: PUSH_TIMEOUT_MS,
    });
    progress.end('push', { ok: true, duration_ms: null });
    cli.out.result({ data }, () => {
      cli.out.line(data.reference);
      cli.out.line(`${formatBytes(data.sent_bytes)} sent, ${data.skipped_blobs} blobs were there already`);
    });
    return EXIT.ok;
  } finally {
    progress.stop();
  }
}

function defineExport(image: Command, bind: Bind): void {
  const command = image
    .command('export')
    .description('Write the image of a version into a file, as an OCI image layout in a tar.')
    .argument('<version>', 'ver_…')
    .argument('<file>', 'written whole or not at all');
  examples(command, [
    ['kiln image export ver_01k… shop.tar', 'then: skopeo copy oci-archive:shop.tar docker://…'],
  ]);
  command.action(bind(exportImage));
}

async function exportImage(cli: Cli, id: string, file: string): Promise<ExitCode> {
  const client = await cli.connect();
  const release_id = await releaseOf(client, id);
  const target = path.resolve(cli.cwd, file);
  const part = `${target}.${randomBytes(6).toString('hex')}.part`;
  const progress = new Progress(cli.out);
  try {
    progress.begin('export');
    const body = await client.download(`/releases/${release_id}/image`);
    const out = createWriteStream(part, { flags: 'wx' });
    await pipeline(Readable.fromWeb(body as never), out);
    await rename(part, target);
    progress.end('export', { ok: true, duration_ms: null });
    cli.out.result({ file: target, size_bytes: out.bytesWritten }, () =>
      cli.out.line(`${target}, ${formatBytes(out.bytesWritten)}`),
    );
    return EXIT.ok;
  } finally {
    progress.stop();
    await rm(part, { force: true });
  }
}

async function releaseOf(client: Client, id: string): Promise<string> {
  const { release_id, state } = await findVersionAnywhere(client, id);
  if (release_id === null)
    throw badInput(`${id} is ${state} and has no release.`, 'Name a version that is ready: `kiln versions`.');
  return release_id;
}

/**
 * A client of OCI registries (distribution-spec v1.1): what pull and push need of the API. No npm package does this and
 * is kept up: the known ones speak for Docker Hub of years ago, buffer blobs, or only read.
 *
 * Everything that comes from a registry is held to its digest and to a limit; an interrupted blob goes on where it
 * stopped, in both directions.
 */
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { KilnError } from '../../domain/errors.ts';
import type { Descriptor } from '../../domain/image.ts';
import { digestOf, INDEX_TYPES, invalidImage, MANIFEST_TYPES, MAX_DOCUMENT_BYTES } from './manifest.ts';
import { apiHost, formatReference, type Reference } from './reference.ts';
import { type Credentials, denied, Identity } from './registry-auth.ts';
import {
  type Answer,
  baseUrl,
  makeWire,
  type Request,
  readAnswer,
  resolveLocation,
  unreachable,
  type Wire,
  type WireOptions,
} from './registry-http.ts';

export interface RegistryAccess extends WireOptions {
  credentials?: Credentials | null;
  /** Blobs larger than this are pushed in pieces of this size, each held in memory. Bytes. */
  chunk_bytes?: number;
}

const MAX_COMPLAINT_BYTES = 64 * 1024;
const MAX_SAID = 300;
const CHUNK_BYTES = 16 * 1024 * 1024;
const MAX_CHUNK_BYTES = 128 * 1024 * 1024;
/** Interruptions of one blob without a byte of progress between them. */
const MAX_STALLS = 4;

export class Registry {
  readonly #wire: Wire;
  readonly #identity: Identity;
  readonly #access: RegistryAccess;
  readonly #base: URL;
  readonly #repository: string;
  readonly #signal: { signal?: AbortSignal };

  /** Of one repository; close it. */
  constructor(of: Pick<Reference, 'host' | 'repository'>, access: RegistryAccess, signal?: AbortSignal) {
    this.#wire = makeWire(access);
    this.#identity = new Identity(this.#wire, access.credentials ?? null);
    this.#access = access;
    this.#base = baseUrl(apiHost(of.host), access);
    this.#repository = of.repository;
    this.#signal = signal ? { signal } : {};
  }

  close(): void {
    this.#wire.close();
  }

  /** A manifest or index by tag or digest; the bytes are those of the digest. */
  async manifest(reference: Reference): Promise<{ bytes: Buffer; digest: string; media_type: string }> {
    const name = reference.digest ?? reference.tag!;
    const answer = await this.#send('pull', {
      method: 'GET',
      url: this.#url(`manifests/${name}`),
      headers: { accept: [...MANIFEST_TYPES, ...INDEX_TYPES].join(', ') },
      repeatable: true,
    });
    if (answer.status !== 200) throw await this.#failed(answer, `read ${formatReference(reference)}`);
    const bytes = await readAnswer(answer, MAX_DOCUMENT_BYTES);
    const digest = digestOf(bytes);
    if (reference.digest !== null && reference.digest !== digest)
      throw invalidImage(`The registry ${this.#base.host} gave other bytes for ${reference.digest}`);
    const media_type = String(answer.headers['content-type'] ?? '')
      .split(';')[0]!
      .trim();
    return { bytes, digest, media_type };
  }

  /** The bytes of a blob; an interruption is bridged. Whoever stores them checks the digest. */
  async *blob(of: Pick<Descriptor, 'digest' | 'size'>): AsyncGenerator<Buffer> {
    let done = 0;
    for (let stalls = 0; done < of.size || of.size === 0; stalls++) {
      const before = done;
      try {
        for await (const chunk of await this.#blobFrom(of, done)) {
          done += chunk.length;
          yield chunk;
        }
        if (done >= of.size) return;
        throw new Error(`the answer ended after ${done} of ${of.size} bytes`);
      } catch (error) {
        this.#signal.signal?.throwIfAborted();
        if (error instanceof KilnError) throw error;
        if (done > before) stalls = 0;
        if (stalls >= MAX_STALLS) throw unreachable(this.#base, error);
        await this.#pause(stalls);
      }
    }
  }

  async #blobFrom({ digest }: Pick<Descriptor, 'digest'>, done: number): Promise<AsyncIterable<Buffer>> {
    const answer = await this.#send('pull', {
      method: 'GET',
      url: this.#url(`blobs/${digest}`),
      headers: done > 0 ? { range: `bytes=${done}-` } : {},
      repeatable: true,
    });
    if (answer.status === 200) return done === 0 ? answer.body : skipping(answer.body, done);
    if (answer.status === 206 && new RegExp(`^bytes ${done}-`).test(String(answer.headers['content-range'])))
      return answer.body;
    throw await this.#failed(answer, `read the blob ${digest}`);
  }

  /** Puts a blob unless it is there; `mount_from`: another repository of the registry that may have it. */
  async pushBlob(
    of: Pick<Descriptor, 'digest' | 'size'>,
    open: () => Promise<Readable>,
    mount_from: string | null = null,
  ): Promise<'there' | 'mounted' | 'sent'> {
    if (await this.#has(of)) return 'there';
    for (let attempt = 0; ; attempt++) {
      try {
        const upload = await this.#startUpload(of.digest, mount_from);
        if (upload === null) return 'mounted';
        const chunk_bytes = Math.max(this.#access.chunk_bytes ?? CHUNK_BYTES, upload.min_chunk_bytes);
        if (of.size <= chunk_bytes) await this.#sendWhole(of, open, upload.url);
        else await this.#sendChunks(of, open, upload.url, chunk_bytes);
        return 'sent';
      } catch (error) {
        this.#signal.signal?.throwIfAborted();
        const is_final = error instanceof KilnError && error.code !== 'STORAGE_FAILED';
        if (is_final || attempt === 2) throw error;
        await this.#pause(attempt);
      }
    }
  }

  async #has({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Promise<boolean> {
    const url = this.#url(`blobs/${digest}`);
    const answer = await this.#send('push', { method: 'HEAD', url, headers: {}, repeatable: true });
    answer.body.resume();
    return answer.status === 200 && Number(answer.headers['content-length'] ?? size) === size;
  }

  /** Null when the registry has taken the blob from the other repository. */
  async #startUpload(
    digest: string,
    from: string | null,
  ): Promise<{ url: URL; min_chunk_bytes: number } | null> {
    const url = this.#url('blobs/uploads/');
    if (from !== null) {
      url.searchParams.set('mount', digest);
      url.searchParams.set('from', from);
    }
    const request: Request = { method: 'POST', url, headers: { 'content-length': '0' }, repeatable: true };
    const answer = await this.#send('push', request, from);
    if (answer.status === 201) {
      answer.body.resume();
      return null;
    }
    // Who may not read the other repository simply uploads.
    if (from !== null && answer.status !== 202) {
      answer.body.resume();
      return this.#startUpload(digest, null);
    }
    if (answer.status !== 202) throw await this.#failed(answer, 'start an upload');
    answer.body.resume();
    const min_chunk_bytes = Math.min(
      Number(answer.headers['oci-chunk-min-length'] ?? 0) || 0,
      MAX_CHUNK_BYTES,
    );
    return { url: this.#location(answer), min_chunk_bytes };
  }

  async #sendWhole(
    of: Pick<Descriptor, 'digest' | 'size'>,
    open: () => Promise<Readable>,
    to: URL,
  ): Promise<void> {
    const answer = await this.#sendTo(withDigest(to, of.digest), {
      method: 'PUT',
      headers: { 'content-type': 'application/octet-stream' },
      body: { length: of.size, open },
      repeatable: false,
    });
    if (answer.status !== 201) throw await this.#failed(answer, `write the blob ${of.digest}`);
    answer.body.resume();
  }

  async #sendChunks(
    of: Pick<Descriptor, 'digest' | 'size'>,
    open: () => Promise<Readable>,
    to: URL,
    chunk_bytes: number,
  ): Promise<void> {
    let url = to;
    let done = 0;
    const body = await open();
    try {
      for await (const chunk of inChunks(body, chunk_bytes)) {
        url = await this.#sendChunk(url, chunk, done);
        done += chunk.length;
      }
    } finally {
      body.destroy();
    }
    const answer = await this.#sendTo(withDigest(url, of.digest), {
      method: 'PUT',
      headers: { 'content-length': '0' },
      repeatable: false,
    });
    if (answer.status !== 201) throw await this.#failed(answer, `write the blob ${of.digest}`);
    answer.body.resume();
  }

  /** Answers where the next one goes. After an interruption the registry is asked how much it has. */
  async #sendChunk(to: URL, chunk: Buffer, start: number): Promise<URL> {
    let url = to;
    let sent = 0;
    for (let stalls = 0; ; stalls++) {
      const rest = chunk.subarray(sent);
      let answer: Answer | null = null;
      try {
        answer = await this.#sendTo(url, {
          method: 'PATCH',
          headers: {
            'content-type': 'application/octet-stream',
            'content-range': `${start + sent}-${start + chunk.length - 1}`,
          },
          body: { length: rest.length, open: async () => Readable.from([rest], { objectMode: false }) },
          repeatable: false,
        });
      } catch (error) {
        this.#signal.signal?.throwIfAborted();
        if (stalls >= MAX_STALLS) throw error;
      }
      if (answer?.status === 202 || answer?.status === 204) {
        answer.body.resume();
        return this.#location(answer, url);
      }
      const is_temporary = answer === null || answer.status === 416 || answer.status >= 500;
      if (answer && (!is_temporary || stalls >= MAX_STALLS))
        throw await this.#failed(answer, 'write a piece of a blob');
      answer?.body.resume();
      await this.#pause(stalls);
      const status = await this.#sendTo(url, { method: 'GET', headers: {}, repeatable: true });
      status.body.resume();
      const [, end] = /^(?:bytes=)?0-(\d+)$/.exec(String(status.headers.range ?? '')) ?? [];
      // An upload that has nothing yet cannot say so: it is 0-0.
      const has = (Number(end ?? 0) || -1) + 1 - start;
      if (status.status !== 204 || has < 0 || has > chunk.length)
        throw new KilnError('STORAGE_FAILED', `The registry ${url.host} lost an upload. Push again.`);
      url = this.#location(status, url);
      if (has === chunk.length) return url;
      sent = has;
    }
  }

  /** Writes a manifest under a tag, or under its digest. */
  async pushManifest(bytes: Buffer, media_type: string, tag: string | null): Promise<void> {
    const digest = digestOf(bytes);
    const answer = await this.#send('push', {
      method: 'PUT',
      url: this.#url(`manifests/${tag ?? digest}`),
      headers: { 'content-type': media_type },
      body: { length: bytes.length, open: async () => Readable.from([bytes], { objectMode: false }) },
      repeatable: true,
    });
    if (answer.status !== 201) throw await this.#failed(answer, `write the manifest ${digest}`);
    answer.body.resume();
    const said = answer.headers['docker-content-digest'];
    if (said !== undefined && said !== digest)
      throw new KilnError(
        'STORAGE_FAILED',
        `The registry ${this.#base.host} stored ${said} instead of ${digest}.`,
      );
  }

  #url(path: string): URL {
    return new URL(`v2/${this.#repository}/${path}`, this.#base);
  }

  #send(action: 'pull' | 'push', request: Request, mount_from: string | null = null): Promise<Answer> {
    const actions = action === 'push' ? 'pull,push' : 'pull';
    const other = mount_from === null ? '' : ` repository:${mount_from}:pull`;
    return this.#identity.send(
      { ...this.#signal, ...request },
      `repository:${this.#repository}:${actions}${other}`,
    );
  }

  /** To an address that the registry named: credentials only if it is the registry itself. */
  #sendTo(url: URL, request: Omit<Request, 'url'>): Promise<Answer> {
    if (url.origin === this.#base.origin) return this.#send('push', { ...request, url });
    return this.#wire.send({ ...this.#signal, ...request, url });
  }

  /** Without a Location the address stays. */
  #location(answer: Answer, known?: URL): URL {
    const { location } = answer.headers;
    if (location !== undefined) return resolveLocation(location, answer.url, this.#access.scheme);
    if (known) return known;
    throw new KilnError('STORAGE_FAILED', `The registry ${this.#base.host} says not where to upload to.`);
  }

  #pause(stalls: number): Promise<void> {
    return pause((this.#access.backoff_ms ?? 500) * 2 ** stalls, undefined, this.#signal);
  }

  async #failed(answer: Answer, what: string): Promise<KilnError> {
    const { status } = answer;
    const said = saidBy(await readAnswer(answer, MAX_COMPLAINT_BYTES).catch(() => Buffer.alloc(0)));
    if (status === 401 || status === 403) return denied(answer.url, `could not ${what}${said}`);
    if (status === 404)
      return new KilnError(
        'NOT_FOUND',
        `The registry ${this.#base.host} has nothing of that name: could not ${what}${said}. Check the name; a private one needs credentials.`,
      );
    return new KilnError(
      'STORAGE_FAILED',
      `The registry ${this.#base.host} answered ${status}: could not ${what}${said}. Try again, or ask who runs it.`,
    );
  }
}

/** Query parameters of an upload address are the registry's own text; only the digest is added. */
function withDigest(url: URL, digest: string): URL {
  return new URL(`${url.href}${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`);
}

/** What a registry has to say, as ` (…)`, without control characters. */
function saidBy(body: Buffer): string {
  try {
    const { code, message } = JSON.parse(body.toString('utf8')).errors[0];
    const said = `${code}: ${message}`.replace(/[^\x20-\x7e]+/g, ' ').slice(0, MAX_SAID);
    return ` (${said})`;
  } catch {
    return '';
  }
}

async function* skipping(body: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  let left = bytes;
  for await (const chunk of body) {
    const rest = chunk.subarray(Math.min(left, chunk.length));
    left -= chunk.length - rest.length;
    if (rest.length > 0) yield rest;
  }
}

async function* inChunks(body: Readable, chunk_bytes: number): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const part of body as AsyncIterable<Buffer>) {
    for (let rest = part; rest.length > 0; ) {
      const piece = rest.subarray(0, chunk_bytes - length);
      parts.push(piece);
      length += piece.length;
      rest = rest.subarray(piece.length);
      if (length < chunk_bytes) continue;
      yield Buffer.concat(parts);
      parts = [];
      length = 0;
    }
  }
  if (length > 0) yield Buffer.concat(parts);
}

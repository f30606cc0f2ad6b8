/** Names of images in registries, read as Docker reads them: `[host[:port]/]repository[:tag][@sha256:…]`. */
import { KilnError } from '../../domain/errors.ts';

export interface Reference {
  /** With the port, if it has one: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  host: string;
  repository: string;
  tag: string | null;
  /** Beside a tag, the digest decides. */
  digest: string | null;
}

const MAX_LENGTH = 1024;
const MAX_REPOSITORY_LENGTH = 255;
const DOCKER_HUB = 'docker.io';

const LABEL = '[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?';
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[0-9a-fA-F:]{2,39}\\])(?::[0-9]{1,5})?$`);
const PART = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${PART}(?:/${PART})*$`);
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** @throws KilnError VALIDATION_ERROR that says which part is wrong */
export function parseReference(text: string): Reference {
  if (text.length > MAX_LENGTH) refuse(`${text.slice(0, 80)}…`, 'is too long');
  const at = text.indexOf('@');
  const digest = at < 0 ? null : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  if (digest !== null && !DIGEST.test(digest))
    refuse(text, 'has a digest that is not sha256:<64 hex digits>');
  const colon = named.lastIndexOf(':');
  const has_tag = colon > named.lastIndexOf('/');
  const tag = has_tag ? named.slice(colon + 1) : null;
  if (tag !== null && !TAG.test(tag)) refuse(text, 'has a tag that cannot be');
  const { host, path } = splitHost(has_tag ? named.slice(0, colon) : named);
  if (!HOST.test(host) || !URL.canParse(`https://${host}/`)) refuse(text, 'has no valid host');
  const repository = host === DOCKER_HUB && !path.includes('/') ? `library/${path}` : path;
  if (!REPOSITORY.test(repository) || repository.length > MAX_REPOSITORY_LENGTH)
    refuse(text, 'has no valid repository (lower-case letters, digits, and . _ - between them)');
  return { host, repository, tag: tag ?? (digest === null ? 'latest' : null), digest };
}

export function formatReference({ host, repository, tag, digest }: Reference): string {
  return `${host}/${repository}${tag === null ? '' : `:${tag}`}${digest === null ? '' : `@${digest}`}`;
}

/** The first part is a host only if it looks like one; `team/app` is on Docker Hub. */
function splitHost(name: string): { host: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  if (!/[.:\]]/.test(first) && first !== 'localhost') return { host: DOCKER_HUB, path: name };
  const host = first === 'index.docker.io' || first === 'registry-1.docker.io' ? DOCKER_HUB : first;
  return { host, path: name.slice(slash + 1) };
}

/** Where a registry's API is. Docker Hub's is not where its name says. */
export function apiHost(host: string): string {
  return host === DOCKER_HUB ? 'registry-1.docker.io' : host;
}

export function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '').toLowerCase();
  return name === 'localhost' || name === '[::1]' || /^127(\.\d{1,3}){3}$/.test(name);
}

function refuse(text: string, why: string): never {
  throw new KilnError(
    'VALIDATION_ERROR',
    `The image name ${JSON.stringify(text)} ${why}. Write it like registry.example.com/team/app:1.0 or …@sha256:<digest>.`,
  );
}

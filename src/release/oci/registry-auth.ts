/**
 * Who we are to a registry: nobody, a user (Basic), or the bearer of a token that the registry's token service gives for
 * a scope. Credentials and tokens appear in no message.
 */
import { KilnError } from '../../domain/errors.ts';
import { isLoopback } from './reference.ts';
import { type Answer, type Request, readAnswer, type Wire } from './registry-http.ts';

export interface Credentials {
  username: string;
  password: string;
}

const MAX_TOKEN_BYTES = 256 * 1024;
const MAX_CHALLENGE = 8192;

export interface Challenge {
  scheme: 'basic' | 'bearer';
  parameters: Record<string, string>;
}

/** Sends requests with what the registry has asked for, asking anew when it says so. */
export class Identity {
  readonly #wire: Wire;
  readonly #credentials: Credentials | null;
  /** By scope. */
  readonly #headers = new Map<string, string>();

  constructor(wire: Wire, credentials: Credentials | null) {
    this.#wire = wire;
    this.#credentials = credentials;
  }

  /** `scope`: what the request needs, should a token be asked for. `url` must be of the registry itself. */
  async send(request: Request, scope: string): Promise<Answer> {
    const known = this.#headers.get(scope);
    const answer = await this.#wire.send(known ? withHeader(request, known) : request);
    if (answer.status !== 401) return answer;
    // A host that we were sent on to is not the one that the credentials are for, whatever it asks.
    if (answer.url.origin !== request.url.origin) return answer;
    const challenge = parseChallenge(String(answer.headers['www-authenticate'] ?? ''));
    answer.body.resume();
    if (!challenge) throw denied(request.url, 'it asks for credentials in a way that is not known');
    const header = await this.#answer(challenge, request, scope);
    this.#headers.set(scope, header);
    const second = await this.#wire.send(withHeader(request, header));
    if (second.status !== 401) return second;
    this.#headers.delete(scope);
    second.body.resume();
    throw denied(request.url, this.#credentials ? 'the credentials are wrong' : 'it wants credentials');
  }

  async #answer(challenge: Challenge, request: Request, scope: string): Promise<string> {
    if (challenge.scheme === 'basic') {
      if (!this.#credentials) throw denied(request.url, 'it wants a user name and a password');
      return basic(this.#credentials);
    }
    return `Bearer ${await this.#token(challenge, request, scope)}`;
  }

  async #token({ parameters }: Challenge, request: Request, scope: string): Promise<string> {
    const { realm, service } = parameters;
    if (!realm || !URL.canParse(realm)) throw denied(request.url, 'it names no token service');
    const url = new URL(realm);
    const is_safe =
      url.protocol === 'https:' ||
      (url.protocol === 'http:' &&
        request.url.protocol === 'http:' &&
        (isLoopback(url.host) || url.hostname === request.url.hostname));
    if (!is_safe) throw denied(request.url, `its token service ${url.host} is not encrypted`);
    url.username = '';
    url.password = '';
    if (service) url.searchParams.set('service', service);
    for (const one of scope.split(' ')) url.searchParams.append('scope', one);
    const headers: Record<string, string> = this.#credentials
      ? { authorization: basic(this.#credentials) }
      : {};
    const { signal } = request;
    const answer = await this.#wire.send({
      method: 'GET',
      url,
      headers,
      repeatable: true,
      ...(signal ? { signal } : {}),
    });
    const body = await readAnswer(answer, MAX_TOKEN_BYTES);
    if (answer.status !== 200)
      throw denied(
        request.url,
        `its token service answers ${answer.status}${this.#credentials ? '' : ' without credentials'}`,
      );
    const token = tokenOf(body);
    if (!token) throw denied(request.url, 'its token service gives no token');
    return token;
  }
}

function withHeader(request: Request, authorization: string): Request {
  return { ...request, headers: { ...request.headers, authorization } };
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** Printable, no spaces: it becomes a header. */
const TOKEN = /^[\x21-\x7e]+$/;

function tokenOf(body: Buffer): string | null {
  try {
    const { token, access_token } = JSON.parse(body.toString('utf8'));
    const found = token ?? access_token;
    return typeof found === 'string' && TOKEN.test(found) ? found : null;
  } catch {
    return null;
  }
}

/** The strongest of the challenges in a WWW-Authenticate header that we can answer. */
export function parseChallenge(header: string): Challenge | null {
  if (header.length > MAX_CHALLENGE) return null;
  const found: Challenge[] = [];
  let at: Challenge | null = null;
  const pieces = /([a-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([a-z0-9_-]+)(?=\s|,|$)/gi;
  for (const [, key, quoted, plain, word] of header.matchAll(pieces)) {
    if (key !== undefined) {
      if (at) at.parameters[key.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain!;
      continue;
    }
    const scheme = word!.toLowerCase();
    at = scheme === 'basic' || scheme === 'bearer' ? { scheme, parameters: Object.create(null) } : null;
    if (at) found.push(at);
  }
  return found.find(({ scheme }) => scheme === 'bearer') ?? found[0] ?? null;
}

export function denied(url: URL, why: string): KilnError {
  return new KilnError(
    'FORBIDDEN',
    `The registry ${url.host} does not let us in: ${why}. Check the user, the password and what they may do there.`,
  );
}

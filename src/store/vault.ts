import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import type { Conn } from './db.ts';

/**
 * Encryption at rest of environment values: AES-256-GCM, `v1.<iv>.<tag>.<ciphertext>` in base64url. `context` is
 * authenticated with it, so that a sealed value copied to another row does not open there.
 */
export interface Vault {
  seal(text: string, context: string): string;
  open(sealed: string, context: string): string;
}

/** `key` is 32 random bytes, kept in the data folder with mode 0600. */
export function makeVault(key: Buffer): Vault {
  if (key.length !== 32) throw new Error(`the vault key must be 32 bytes, not ${key.length}`);
  return {
    seal(text, context) {
      const iv = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key, iv);
      cipher.setAAD(Buffer.from(context));
      const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
      return ['v1', ...[iv, cipher.getAuthTag(), body].map((part) => part.toString('base64url'))].join('.');
    },
    open(sealed, context) {
      const [scheme, iv, tag, body] = sealed.split('.');
      if (scheme !== 'v1' || iv === undefined || tag === undefined || body === undefined)
        throw new Error('a sealed value is malformed');
      const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(iv, 'base64url'));
      decipher.setAAD(Buffer.from(context));
      decipher.setAuthTag(Buffer.from(tag, 'base64url'));
      return Buffer.concat([decipher.update(Buffer.from(body, 'base64url')), decipher.final()]).toString(
        'utf8',
      );
    },
  };
}

/** Is anything in the database sealed? Every version has an environment, if an empty one. */
export async function holdsSealed(db: Conn): Promise<boolean> {
  const { rows } = await sql<{ found: boolean }>`
    select exists (select 1 from versions where env_encrypted <> '')
        or exists (select 1 from env_vars)
        or exists (select 1 from sandboxes where env_encrypted is not null)
        or exists (select 1 from webhooks) as found`.execute(db);
  return rows[0]!.found;
}

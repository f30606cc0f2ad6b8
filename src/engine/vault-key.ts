/** The key that environment values and secrets of webhooks are sealed with: `vault.key` in the data folder. */
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import type { Conn } from '../store/db.ts';
import { holdsSealed, makeVault, type Vault } from '../store/vault.ts';
import { keptSecret } from './folders.ts';

/**
 * Made on first start. Once the database holds what was sealed with it, another key would open none of that: then a
 * missing one is said, not replaced.
 * @throws KilnError CONFLICT
 */
export async function openVault(db: Conn, data: string): Promise<Vault> {
  const key = await keptSecret(data, 'vault.key', undefined, async () => {
    if (await holdsSealed(db)) throw unusable(data, 'is missing or empty');
  });
  if (!/^[0-9a-f]{64}$/i.test(key)) throw unusable(data, 'does not hold a key (64 hexadecimal digits)');
  return makeVault(Buffer.from(key, 'hex'));
}

function unusable(data: string, why: string): KilnError {
  return new KilnError(
    'CONFLICT',
    `The file ${path.join(data, 'vault.key')} ${why}, and the environment values in the database are sealed with it. ` +
      'Restore it from a backup of the data folder. Without one these values are lost: start with a new data folder ' +
      '(--data) and an empty database, and publish again.',
  );
}

import { type EnvVar, preview } from '../domain/env-var.ts';
import type { Conn, Trx } from './db.ts';
import type { Vault } from './vault.ts';

export interface EnvPreview {
  name: string;
  preview: string;
  is_secret: boolean;
  at_build: boolean;
  created_at: Date;
  updated_at: Date;
}

const context = (deployment_id: string, name: string) => `env:${deployment_id}:${name}`;

export async function listEnvPreviews(
  db: Conn,
  deployment_id: string,
  environment: string,
): Promise<EnvPreview[]> {
  return db
    .selectFrom('env_vars')
    .select(['name', 'preview', 'is_secret', 'at_build', 'created_at', 'updated_at'])
    .where('deployment_id', '=', deployment_id)
    .where('environment', '=', environment)
    .orderBy('name')
    .execute();
}

export async function setEnvVar(
  trx: Trx,
  vault: Vault,
  of: Pick<EnvVar, 'deployment_id' | 'environment' | 'name' | 'value' | 'is_secret' | 'at_build'>,
): Promise<void> {
  const { value, ...row } = of;
  const written = {
    value_encrypted: vault.seal(value, context(of.deployment_id, of.name)),
    preview: preview(value, of.is_secret),
    is_secret: of.is_secret,
    at_build: of.at_build,
    updated_at: new Date(),
  };
  await trx
    .insertInto('env_vars')
    .values({ ...row, ...written })
    .onConflict((c) => c.columns(['deployment_id', 'environment', 'name']).doUpdateSet(written))
    .execute();
}

export async function deleteEnvVar(
  trx: Trx,
  deployment_id: string,
  environment: string,
  name: string,
): Promise<boolean> {
  const result = await trx
    .deleteFrom('env_vars')
    .where('deployment_id', '=', deployment_id)
    .where('environment', '=', environment)
    .where('name', '=', name)
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}

/** Decrypted; only for freezing into a version and for redaction. */
export async function readEnvVars(
  db: Conn,
  vault: Vault,
  deployment_id: string,
  environment: string,
): Promise<EnvVar[]> {
  const rows = await db
    .selectFrom('env_vars')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .where('environment', '=', environment)
    .orderBy('name')
    .execute();
  return rows.map(({ value_encrypted, preview: _, ...row }) => ({
    ...row,
    value: vault.open(value_encrypted, context(row.deployment_id, row.name)),
  }));
}

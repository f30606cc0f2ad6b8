/** Variables of a sandbox: kept sealed, given to every exec, shown as previews only. */

import { looksSecret, preview } from '../domain/env-var.ts';
import type { Db } from '../store/db.ts';
import { sandboxEnv, setSandboxEnv } from '../store/sandbox.ts';
import { lockNames } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import type { Vault } from '../store/vault.ts';
import { handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/sandbox.ts';
import { checkEnv } from './env-input.ts';
import { invalidFields } from './errors.ts';
import { findSandbox, notFound, usable } from './find.ts';

const context = (id: string) => `sandbox-env:${id}`;

export function sealSandboxEnv(vault: Vault, id: string, env: Record<string, string>): string {
  return vault.seal(JSON.stringify(env), context(id));
}

export async function openSandboxEnv(
  deps: { database: { db: Db }; vault: Vault },
  id: string,
): Promise<Record<string, string>> {
  const sealed = await sandboxEnv(deps.database.db, id);
  return sealed === null ? {} : JSON.parse(deps.vault.open(sealed, context(id)));
}

function previews(env: Record<string, string>) {
  return Object.keys(env)
    .sort()
    .map((name) => ({ key: name, name, preview: preview(env[name]!, looksSecret(name)) }));
}

/** `[{key, value}]` and `{KEY: value}` are the same; `name` is taken for `key`. */
export function varsToEnv(
  vars: { key?: string | null; name?: string | null; value: string }[],
): Record<string, string> {
  return Object.fromEntries(
    vars.map((v, i) => {
      const name = v.key ?? v.name;
      if (!name) throw invalidFields({ [`vars.${i}.key`]: ['is missing'] });
      return [name, v.value];
    }),
  );
}

export const sandboxEnvHandlers: Mounted[] = [
  handle(contract.getSandboxEnv, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    return reply({ data: previews(await openSandboxEnv(call.deps, id)) });
  }),
  handle(contract.putSandboxEnv, async (call) => {
    const { id } = await usable(call, call.params.id);
    const wanted = { ...call.body.env, ...varsToEnv(call.body.vars ?? []) };
    const merged = await changeEnv(call.deps, id, (env) => checkEnv({ ...env, ...wanted }, 'env'));
    return reply({ data: previews(merged) });
  }),
  handle(contract.deleteSandboxEnv, async (call) => {
    const { id } = await usable(call, call.params.id);
    const { key } = call.params;
    await changeEnv(call.deps, id, (env) => {
      if (!Object.hasOwn(env, key)) throw notFound('variable', key);
      const { [key]: _, ...rest } = env;
      return rest;
    });
    return reply({ key, deleted: true });
  }),
];

/** Reads, changes and writes in one turn, so that two changes at once both stay. */
async function changeEnv(
  deps: { database: { db: Db }; vault: Vault },
  id: string,
  by: (env: Record<string, string>) => Record<string, string>,
): Promise<Record<string, string>> {
  return transact(deps.database.db, async (trx) => {
    await lockNames(trx, context(id));
    const sealed = await sandboxEnv(trx, id);
    const env = by(sealed === null ? {} : JSON.parse(deps.vault.open(sealed, context(id))));
    await setSandboxEnv(trx, id, sealSandboxEnv(deps.vault, id, env));
    return env;
  });
}

/** Environment variables of a deployment: set, shown as previews, removed. */
import { isPublicName, looksSecret } from '../domain/env-var.ts';
import { type EnvPreview, listEnvPreviews, readEnvVars } from '../store/env-var.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/env-var.ts';
import { checkEnv, ENV_VARS } from './env-input.ts';
import { invalidFields } from './errors.ts';
import { findDeployment, iso, notFound } from './find.ts';

function present(v: EnvPreview, environment: string): contract.EnvPreviewView {
  return {
    name: v.name,
    key: v.name,
    preview: v.preview,
    is_secret: v.is_secret,
    at_build: v.at_build,
    environment,
    created_at: iso(v.created_at),
    updated_at: iso(v.updated_at),
  };
}

async function previews(call: AnyCall, deployment_id: string, environment: string) {
  const rows = await listEnvPreviews(call.deps.database.db, deployment_id, environment);
  return rows.map((row) => present(row, environment));
}

interface Given {
  name: string;
  value: string;
  is_secret: boolean | null;
  at_build: boolean | null;
}

type Vars = {
  name?: string | null;
  key?: string | null;
  value: string;
  is_secret?: boolean | null;
  at_build?: boolean | null;
}[];

/** Both ways to send them, the later one winning; names and values checked. */
function given(env: Record<string, string>, vars: Vars): Given[] {
  const by_name = new Map<string, Given>();
  for (const [name, value] of Object.entries(env))
    by_name.set(name, { name, value, is_secret: null, at_build: null });
  for (const [i, v] of vars.entries()) {
    const name = v.name ?? v.key;
    if (!name) throw invalidFields({ [`vars.${i}.name`]: ['is missing'] });
    by_name.set(name, { name, value: v.value, is_secret: v.is_secret ?? null, at_build: v.at_build ?? null });
  }
  checkEnv(Object.fromEntries([...by_name].map(([name, v]) => [name, v.value])), 'env');
  return [...by_name.values()];
}

export const envVarHandlers: Mounted[] = [
  handle(contract.listEnv, async (call) => {
    const { id } = await findDeployment(call, call.params.id);
    return data(await previews(call, id, call.query.environment ?? 'production'));
  }),
  handle(contract.setEnv, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const environment = call.body.environment ?? call.query.environment ?? 'production';
    const wanted = given(call.body.env ?? {}, call.body.vars ?? []);
    const rows = await listEnvPreviews(call.deps.database.db, deployment.id, environment);
    const before = new Map(rows.map((row) => [row.name, row]));
    const added = wanted.filter((v) => !before.has(v.name)).length;
    if (before.size + added > ENV_VARS)
      throw invalidFields({ env: [`would make ${before.size + added} variables; the limit is ${ENV_VARS}`] });
    const { database, vault } = call.deps;
    const stored = await readEnvVars(database.db, vault, deployment.id, environment);
    const values = [...stored, ...wanted].map((v) => [v.name, v.value]);
    checkEnv(Object.fromEntries(values), 'env'); // all of them together, as programs will get them
    await call.deps.engine.setEnv(
      deployment,
      wanted.map((v) => ({
        environment,
        name: v.name,
        value: v.value,
        // What was made a secret on purpose must not become readable by an update that does not say so.
        is_secret: v.is_secret ?? before.get(v.name)?.is_secret ?? looksSecret(v.name),
        at_build: v.at_build ?? before.get(v.name)?.at_build ?? isPublicName(v.name),
      })),
    );
    return data(await previews(call, deployment.id, environment));
  }),
  handle(contract.deleteEnv, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const { name } = call.params;
    if (!(await call.deps.engine.unsetEnv(deployment, call.query.environment ?? 'production', name)))
      throw notFound('variable', name);
    return reply({ name, deleted: true });
  }),
];

/** Custom domains: three families of calls over the same rows. Only proved names are routed. */
import { domainToASCII } from 'node:url';
import type { Deployment } from '../domain/deployment.ts';
import { type Domain, hostName, isWww, type RedirectPolicy, verificationRecords } from '../domain/domain.ts';
import { KilnError } from '../domain/errors.ts';
import type { Trx } from '../store/db.ts';
import { lockLivingDeployment } from '../store/deployment.ts';
import {
  countDomains,
  domainByName,
  getDomain,
  insertDomain,
  isProved,
  listDomains,
  updateDomain,
} from '../store/domain.ts';
import { appendEvent } from '../store/event.ts';
import { transact } from '../store/transact.ts';
import { type AnyCall, data, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/domain.ts';
import { invalidFields } from './errors.ts';
import { findDeployment, iso, notFound, pageOf } from './find.ts';
import { labelsOf } from './owner.ts';

const MAX_DOMAINS = 1000;

function view(call: AnyCall, row: Domain): contract.DomainView {
  const { state } = row;
  const { cname, txt } = verificationRecords(row, call.deps.base_domain);
  return {
    id: row.id,
    tenant_id: row.tenant_id,
    workspace_id: row.workspace_id,
    project_id: row.project_id,
    ...labelsOf(row),
    domain: row.domain,
    fqdn: row.domain,
    state,
    status: state,
    verification_status: state,
    verified: row.verified_at !== null,
    deployment_id: row.deployment_id,
    resource_type: row.deployment_id === null ? null : 'deployment',
    resource_id: row.deployment_id,
    redirect_policy: row.redirect_policy,
    verification_token: row.verification_token,
    verification_target: cname.value,
    dns_records: [
      { type: 'CNAME', ...cname, purpose: 'proves control and routes; for names below the apex' },
      { type: 'TXT', ...txt, purpose: 'proves control; for the apex, together with an A or ALIAS record' },
    ],
    instructions: `Set one record: CNAME ${cname.name} → ${cname.value}, or (at an apex) TXT ${txt.name} = ${txt.value} and an A/ALIAS record to this engine's edge. Then verify.`,
    error_message: row.failure_message,
    url: `http://${row.domain}`,
    verified_at: iso(row.verified_at),
    last_checked_at: iso(row.last_checked_at),
    created_at: iso(row.created_at),
    updated_at: iso(row.updated_at),
  };
}

function nameOf(call: AnyCall, text: string): string {
  const name = hostName(domainToASCII(text.replace(/\.$/, '')));
  const { base_domain } = call.deps;
  if (name === null)
    throw invalidFields({ domain: ['must be a host name like shop.example.com (no scheme, port or path)'] });
  if (name === base_domain || name.endsWith(`.${base_domain}`))
    throw invalidFields({
      domain: [`must not lie below ${base_domain}, where deployments have their names`],
    });
  return name;
}

function checkPolicy(domain: string, policy: RedirectPolicy): RedirectPolicy {
  if (policy === 'apex_to_www' && isWww(domain))
    throw invalidFields({
      redirect_policy: [
        `apex_to_www needs the apex: attach ${domain.slice(4)}, whose proof covers www as well`,
      ],
    });
  return policy;
}

interface Wanted {
  domain: string;
  redirect_policy?: RedirectPolicy | null;
  external_workspace_id?: string | null;
  external_user_id?: string | null;
  external_project_id?: string | null;
}

/** The row as it is when the same deployment has the domain already. Errors: CONFLICT, TOO_MANY, VALIDATION_ERROR. */
export async function attach(call: AnyCall, deployment: Deployment | null, body: Wanted): Promise<Domain> {
  const { deps, caller } = call;
  const domain = nameOf(call, body.domain);
  const redirect_policy = checkPolicy(domain, body.redirect_policy ?? 'none');
  const taken = new KilnError('CONFLICT', `${domain} is attached already; remove it there first.`);
  return transact(deps.database.db, async (trx) => {
    // Its domains go with a deployment: none must come after.
    if (deployment) await lockLivingDeployment(trx, deployment.id);
    const before = await domainByName(trx, caller.tenant_id, domain);
    if (before && before.deployment_id === (deployment?.id ?? null)) return before;
    if (before || (await isProved(trx, domain))) throw taken;
    if ((await countDomains(trx, caller.tenant_id)) >= MAX_DOMAINS)
      throw new KilnError('TOO_MANY', `There are ${MAX_DOMAINS} domains; remove some first.`);
    const labels = labelsOf(body);
    const made = await insertDomain(trx, {
      id: deps.newId('dom'),
      tenant_id: caller.tenant_id,
      workspace_id: deployment?.workspace_id ?? null,
      project_id: deployment?.project_id ?? caller.project_id,
      external_workspace_id: labels.external_workspace_id ?? deployment?.external_workspace_id ?? null,
      external_user_id: labels.external_user_id ?? deployment?.external_user_id ?? null,
      external_project_id: labels.external_project_id ?? deployment?.external_project_id ?? null,
      deployment_id: deployment?.id ?? null,
      domain,
      redirect_policy,
      verification_token: deps.newId('dom').replace('_', '-'),
    });
    if (!made) throw taken;
    if (deployment) await tell(trx, call, made);
    return made;
  });
}

async function tell(trx: Trx, call: AnyCall, row: Domain): Promise<void> {
  await appendEvent(trx, {
    id: call.deps.newId('evt'),
    tenant_id: row.tenant_id,
    type: 'deployment.domain_attached',
    deployment_id: row.deployment_id,
    data: { domain_id: row.id, domain: row.domain, state: row.state, ...labelsOf(row) },
  });
}

/** What a name's owner alone can have written. Null: neither record is there, and `why` says what was found. */
async function lookUp(call: AnyCall, row: Domain): Promise<{ is_proved: boolean; why: string | null }> {
  const { cname, txt } = verificationRecords(row, call.deps.base_domain);
  const { resolver } = call.deps;
  const [aliases, texts] = await Promise.allSettled([resolver.cname(cname.name), resolver.txt(txt.name)]);
  const same = (a: string) => a.toLowerCase().replace(/\.$/, '') === cname.value.toLowerCase();
  if (aliases.status === 'fulfilled' && aliases.value.some(same)) return { is_proved: true, why: null };
  if (texts.status === 'fulfilled' && texts.value.some((text) => text.trim() === txt.value))
    return { is_proved: true, why: null };
  if (aliases.status === 'rejected' || texts.status === 'rejected')
    return { is_proved: false, why: 'The DNS did not answer; try again.' };
  return {
    is_proved: false,
    why: `Neither CNAME ${cname.name} → ${cname.value} nor TXT ${txt.name} = ${txt.value} was found. New records may take minutes to be seen.`,
  };
}

async function verify(call: AnyCall, row: Domain): Promise<Reply> {
  // A name that is served is not taken down by a look that fails.
  if (row.verified_at !== null) return data(view(call, row));
  const { is_proved, why } = await lookUp(call, row);
  const now = call.deps.now();
  const checked = await transact(call.deps.database.db, async (trx) => {
    if (!is_proved)
      return updateDomain(trx, row, { state: 'failed', failure_message: why, last_checked_at: now });
    if (await isProved(trx, row.domain))
      throw new KilnError('CONFLICT', `${row.domain} was verified by somebody else on this install.`);
    return updateDomain(trx, row, {
      state: row.deployment_id === null ? 'verified' : 'active',
      failure_message: null,
      verified_at: now,
      last_checked_at: now,
    });
  });
  return data(view(call, checked));
}

async function remove(call: AnyCall, row: Domain): Promise<Reply> {
  const removed_at = call.deps.now();
  await transact(call.deps.database.db, (trx) => updateDomain(trx, row, { state: 'removed', removed_at }));
  return reply({ id: row.id, deleted: true });
}

async function assign(call: AnyCall, row: Domain, deployment: Deployment): Promise<Reply> {
  const { id, workspace_id, project_id } = deployment;
  const updated = await transact(call.deps.database.db, async (trx) => {
    await lockLivingDeployment(trx, id);
    const assigned = await updateDomain(trx, row, {
      deployment_id: id,
      workspace_id,
      project_id,
      ...(row.verified_at === null ? {} : { state: 'active' as const }),
    });
    await tell(trx, call, assigned);
    return assigned;
  });
  return data(view(call, updated));
}

async function changePolicy(call: AnyCall, row: Domain, policy: RedirectPolicy): Promise<Reply> {
  const redirect_policy = checkPolicy(row.domain, policy);
  const changed = await transact(call.deps.database.db, (trx) => updateDomain(trx, row, { redirect_policy }));
  return data(view(call, changed));
}

function visible(call: AnyCall, row: Domain | undefined, named: string): Domain {
  const { project_id } = call.caller;
  if (!row || (project_id !== null && row.project_id !== project_id)) throw notFound('domain', named);
  return row;
}

async function byId(call: AnyCall, id: string, deployment: string | null = null): Promise<Domain> {
  if (deployment !== null) await findDeployment(call, deployment);
  const row = visible(call, await getDomain(call.deps.database.db, call.caller.tenant_id, id), id);
  if (deployment !== null && row.deployment_id !== deployment) throw notFound('domain', id);
  return row;
}

async function byName(call: AnyCall, fqdn: string): Promise<Domain> {
  const name = hostName(domainToASCII(fqdn)) ?? fqdn;
  return visible(call, await domainByName(call.deps.database.db, call.caller.tenant_id, name), fqdn);
}

async function list(
  call: AnyCall,
  query: Parameters<typeof pageOf>[0] & Omit<Wanted, 'domain' | 'redirect_policy'>,
  deployment_id?: string,
): Promise<Reply> {
  const { tenant_id, project_id } = call.caller;
  const labels = Object.fromEntries(Object.entries(labelsOf(query)).filter(([, value]) => value !== null));
  const filter = { ...labels, deployment_id, ...(project_id === null ? {} : { project_id }) };
  const page = await listDomains(call.deps.database.db, tenant_id, filter, pageOf(query));
  return reply({ data: page.data.map((row) => view(call, row)), next_cursor: page.next_cursor });
}

async function create(call: AnyCall, body: Wanted, deployment_id: string | null | undefined): Promise<Reply> {
  const deployment = deployment_id ? await findDeployment(call, deployment_id) : null;
  return data(view(call, await attach(call, deployment, body)), 201);
}

export const domainHandlers: Mounted[] = [
  handle(contract.attachDomain, (call) => create(call, call.body, call.params.id)),
  handle(contract.listDeploymentDomains, async (call) =>
    list(call, call.query, (await findDeployment(call, call.params.id)).id),
  ),
  handle(contract.getDeploymentDomain, async (call) =>
    data(view(call, await byId(call, call.params.domain_id, call.params.id))),
  ),
  handle(contract.updateDomain, async (call) => {
    const row = await byId(call, call.params.domain_id, call.params.id);
    return changePolicy(call, row, call.body.redirect_policy ?? row.redirect_policy);
  }),
  handle(contract.verifyDeploymentDomain, async (call) =>
    verify(call, await byId(call, call.params.domain_id, call.params.id)),
  ),
  handle(contract.detachDomain, async (call) =>
    remove(call, await byId(call, call.params.domain_id, call.params.id)),
  ),
  handle(contract.listCustomDomains, (call) => list(call, call.query)),
  handle(contract.createCustomDomain, (call) => create(call, call.body, call.body.resource_id)),
  handle(contract.deleteCustomDomain, async (call) => remove(call, await byId(call, call.params.domain_id))),
  handle(contract.createDomain, (call) => create(call, call.body, call.body.deployment_id)),
  handle(contract.getDomain, async (call) => data(view(call, await byName(call, call.params.fqdn)))),
  handle(contract.deleteDomain, async (call) => remove(call, await byName(call, call.params.fqdn))),
  handle(contract.verifyDomain, async (call) => verify(call, await byName(call, call.params.fqdn))),
  handle(contract.assignDomain, async (call) => {
    const deployment = await findDeployment(call, call.body.deployment_id);
    return assign(call, await byName(call, call.params.fqdn), deployment);
  }),
];

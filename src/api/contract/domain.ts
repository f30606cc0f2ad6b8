import { z } from '@hono/zod-openapi';
import {
  AttributionFields,
  AttributionInput,
  AttributionQuery,
  Deleted,
  defineRoute,
  enveloped,
  listOf,
  ok,
  opt,
  PageQuery,
  Time,
} from './route.ts';

export const DOMAIN_STATES = ['pending', 'verified', 'active', 'failed', 'removed'] as const;
export const REDIRECT_POLICIES = ['none', 'www_to_apex', 'apex_to_www'] as const;

/** One shape for the three families of calls, with the names that each of them reads. */
export const Domain = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    workspace_id: z.string().nullable(),
    project_id: z.string().nullable(),
    ...AttributionFields,
    domain: z.string(),
    fqdn: z.string(),
    state: z.enum(DOMAIN_STATES),
    status: z.enum(DOMAIN_STATES),
    verification_status: z.enum(DOMAIN_STATES),
    verified: z.boolean(),
    deployment_id: z.string().nullable(),
    resource_type: z.literal('deployment').nullable(),
    resource_id: z.string().nullable(),
    redirect_policy: z.enum(REDIRECT_POLICIES),
    verification_token: z.string(),
    verification_target: z.string(),
    dns_records: z.array(
      z.object({ type: z.enum(['CNAME', 'TXT']), name: z.string(), value: z.string(), purpose: z.string() }),
    ),
    instructions: z.string(),
    error_message: z.string().nullable(),
    url: z.string(),
    verified_at: Time.nullable(),
    last_checked_at: Time.nullable(),
    created_at: Time,
    updated_at: Time,
  })
  .openapi('Domain');
export type DomainView = z.infer<typeof Domain>;

const Name = z.string().trim().min(1).max(300);
const Policy = z.enum(REDIRECT_POLICIES);
const DeploymentId = z.string().max(200);

const tag = 'Domains';
const read = 'deployments:read' as const;
const write = 'domains:write' as const;
const one = ok(enveloped(Domain));
const made = {
  201: { about: 'Attached; set one of the DNS records, then verify.', schema: enveloped(Domain) },
};

const attachAbout =
  'Attaches a host name. It is routed once control of it is proved: by an alias to `verification_target`, or a TXT record.';
const verifyAbout =
  'Looks for one of the DNS records. The answer tells how it went: `active` (`verified` without a deployment) or `failed` with `error_message`; try again at will.';

export const attachDomain = defineRoute({
  id: 'attachDomain',
  method: 'post',
  path: '/deployments/{id}/domains',
  tag,
  about: attachAbout,
  scope: write,
  body: z.object({ domain: Name, redirect_policy: opt(Policy), ...AttributionInput }),
  answers: made,
});

export const listDeploymentDomains = defineRoute({
  id: 'listDeploymentDomains',
  method: 'get',
  path: '/deployments/{id}/domains',
  tag,
  about: 'Domains of one deployment, newest first.',
  scope: read,
  query: PageQuery.extend(AttributionQuery.shape),
  answers: ok(listOf(Domain)),
});

export const getDeploymentDomain = defineRoute({
  id: 'getDeploymentDomain',
  method: 'get',
  path: '/deployments/{id}/domains/{domain_id}',
  tag,
  about: 'One of them.',
  scope: read,
  answers: one,
});

export const updateDomain = defineRoute({
  id: 'updateDomain',
  method: 'patch',
  path: '/deployments/{id}/domains/{domain_id}',
  tag,
  about: 'Changes the redirect between the bare name and www (301).',
  scope: write,
  body: z.object({ redirect_policy: opt(Policy) }),
  answers: one,
});

export const verifyDeploymentDomain = defineRoute({
  id: 'verifyDeploymentDomain',
  method: 'post',
  path: '/deployments/{id}/domains/{domain_id}/verify',
  tag,
  about: verifyAbout,
  scope: write,
  body: z.object({}),
  answers: one,
});

export const detachDomain = defineRoute({
  id: 'detachDomain',
  method: 'delete',
  path: '/deployments/{id}/domains/{domain_id}',
  tag,
  about: 'Removes it; the edge stops serving it at once.',
  scope: write,
  answers: ok(Deleted),
});

export const listCustomDomains = defineRoute({
  id: 'listCustomDomains',
  method: 'get',
  path: '/custom-domains',
  tag,
  about: 'Domains of all deployments, newest first.',
  scope: read,
  query: PageQuery.extend(AttributionQuery.shape),
  answers: ok(listOf(Domain)),
});

export const createCustomDomain = defineRoute({
  id: 'createCustomDomain',
  method: 'post',
  path: '/custom-domains',
  tag,
  about: `${attachAbout} Without \`resource_id\` it belongs to no deployment yet.`,
  scope: write,
  body: z.object({
    domain: Name,
    resource_type: opt(z.literal('deployment')),
    resource_id: opt(DeploymentId),
    redirect_policy: opt(Policy),
    ...AttributionInput,
  }),
  answers: made,
});

export const deleteCustomDomain = defineRoute({
  id: 'deleteCustomDomain',
  method: 'delete',
  path: '/custom-domains/{domain_id}',
  tag,
  about: 'Removes it.',
  scope: write,
  answers: ok(Deleted),
});

export const createDomain = defineRoute({
  id: 'createDomain',
  method: 'post',
  path: '/domains',
  tag,
  about: attachAbout,
  scope: write,
  body: z.object({ domain: Name, deployment_id: opt(DeploymentId), redirect_policy: opt(Policy) }),
  answers: made,
});

export const getDomain = defineRoute({
  id: 'getDomain',
  method: 'get',
  path: '/domains/{fqdn}',
  tag,
  about: 'One domain by its name.',
  scope: read,
  answers: one,
});

export const deleteDomain = defineRoute({
  id: 'deleteDomain',
  method: 'delete',
  path: '/domains/{fqdn}',
  tag,
  about: 'Removes it.',
  scope: write,
  answers: ok(Deleted),
});

export const verifyDomain = defineRoute({
  id: 'verifyDomain',
  method: 'post',
  path: '/domains/{fqdn}/verify',
  tag,
  about: verifyAbout,
  scope: write,
  body: z.object({}),
  answers: one,
});

export const assignDomain = defineRoute({
  id: 'assignDomain',
  method: 'post',
  path: '/domains/{fqdn}/assign',
  tag,
  about: 'Gives the domain to a deployment, which serves it from then on if it is verified.',
  scope: write,
  body: z.object({ deployment_id: DeploymentId }),
  answers: one,
});

/** Calls of the protocol that this engine does not have: answered with 422 UNSUPPORTED, never with a silent success. */
import type { Scope } from '../../domain/tenant.ts';
import type { Method } from './route.ts';

interface Missing {
  calls: [Method, string][];
  scope: Scope;
  what: string;
  instead: string;
}

export const UNSUPPORTED: Missing[] = [
  {
    calls: [['post', '/sandboxes/{id}/expose']],
    scope: 'sandboxes:write',
    what: 'Preview URLs of sandboxes',
    instead:
      'A command ends with its call here, so nothing would answer there. Publish: a deployment has a URL, and `promote: false` proves it first.',
  },
  {
    calls: [
      ['get', '/docker-deploy/hosts'],
      ['get', '/docker-deploy/hosts/{host_id}'],
      ['post', '/docker-deploy/hosts/ensure'],
      ['get', '/docker-deploy/templates'],
      ['get', '/docker-deploy/templates/{template_id}'],
    ],
    scope: 'deployments:read',
    what: 'Docker App Engine hosts',
    instead: 'Publish the app itself.',
  },
  {
    calls: [['post', '/deployments/{id}/versions/{version_id}/migration-backup']],
    scope: 'deployments:write',
    what: 'Database backups',
    instead: 'Back up the database where it runs.',
  },
  {
    calls: [
      ['get', '/health-checks'],
      ['post', '/health-checks'],
      ['get', '/health-checks/{check_id}'],
      ['patch', '/health-checks/{check_id}'],
      ['delete', '/health-checks/{check_id}'],
      ['get', '/billing/overview'],
    ],
    scope: 'deployments:read',
    what: 'Uptime monitors and billing',
    instead: 'GET /deployments/{id}/metrics tells how the instances are.',
  },
];

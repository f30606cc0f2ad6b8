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
    calls: [
      ['post', '/sandboxes/{id}/snapshots'],
      ['get', '/sandboxes/{id}/snapshots'],
      ['get', '/sandboxes/{id}/snapshots/{snapshot_id}'],
      ['delete', '/sandboxes/{id}/snapshots/{snapshot_id}'],
      ['post', '/sandboxes/{id}/snapshot'],
      ['post', '/sandboxes/{id}/restore/{snapshot_id}'],
      ['post', '/sandboxes/{id}/fork'],
    ],
    scope: 'sandboxes:write',
    what: 'Sandbox snapshots and forks',
    instead: 'Every publish keeps its own snapshot; retry a version to build from it again.',
  },
  {
    calls: [
      ['post', '/sandboxes/{id}/exports'],
      ['get', '/sandboxes/{id}/exports/download'],
    ],
    scope: 'sandboxes:read',
    what: 'Exports',
    instead: 'Read single files with GET /sandboxes/{id}/files/{path}.',
  },
  {
    calls: [['post', '/sandboxes/{id}/expose']],
    scope: 'sandboxes:write',
    what: 'Preview URLs of sandboxes',
    instead: 'Publish with promote:true; a deployment has a URL.',
  },
  {
    calls: [
      ['get', '/sandboxes/{id}/files/watch'],
      ['get', '/sandboxes/{id}/logs/stream'],
      ['get', '/sandboxes/{id}/events'],
    ],
    scope: 'sandboxes:read',
    what: 'Streams of sandbox files and events',
    instead: 'Poll GET /sandboxes/{id}/files, or follow GET /events/stream.',
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

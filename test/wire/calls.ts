/**
 * Every call of the protocol's deploy surface, in an order in which they can be made for real against one engine. Names
 * in braces are filled from what earlier answers gave (`keep`).
 */
import type { Json } from '../support/client.ts';

export interface Row {
  call: `${'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'} /${string}`;
  query?: string;
  /** Absent: nothing is sent, as clients do that have nothing to say. Strings in it are filled as well. */
  body?: object;
  status?: number | number[];
  /** What the strictest client needs: `data`, a bare object, a list below `data`, a stream, bytes, or a refusal. */
  gives: 'data' | 'bare' | 'list' | 'stream' | 'bytes' | 'refusal';
  fields?: string[];
  keep?: Record<string, (answer: Json) => unknown>;
  /** Polled until the answer is so. */
  until?: (answer: Json) => boolean;
}

const b64 = (text: string) => Buffer.from(text).toString('base64');
const row = (call: Row['call'], gives: Row['gives'], more: Omit<Row, 'call' | 'gives'> = {}): Row => ({
  call,
  gives,
  ...more,
});
const refused = (call: Row['call']): Row =>
  row(call, 'refusal', { status: 422, ...(/^P/.test(call) ? { body: {} } : {}) });

const SANDBOX = ['id', 'state', 'status', 'name', 'slug', 'template_id', 'tenant_id', 'created_at'];
const DEPLOYMENT = ['id', 'tenant_id', 'name', 'slug', 'state', 'public_url', 'auto_subdomain', 'metadata'];
const VERSION = ['id', 'deployment_id', 'tenant_id', 'version_number', 'kind', 'state', 'metadata'];
const RELEASE = [
  'id',
  'deployment_version_id',
  'tenant_id',
  'kind',
  'sha256',
  'artifact_sha256',
  'storage_uri',
];
const DOMAIN = ['id', 'domain', 'fqdn', 'status', 'verification_target', 'dns_records', 'instructions'];
const SNAPSHOT = ['id', 'sandbox_id', 'status', 'keep', 'created_at', 'updated_at'];

/** Section 2.1. */
export const SANDBOXES: Row[] = [
  row('POST /sandboxes', 'bare', {
    body: { template_id: 'miosa-sandbox', name: 'wire', external_workspace_id: 'clinic 1', unheard_of: [1] },
    status: 201,
    fields: SANDBOX,
    keep: { sbx: (a) => a.id, prj: (a) => a.project_id },
  }),
  row('GET /sandboxes', 'list', { query: 'state=running&external_workspace_id=clinic%201&limit=5' }),
  row('GET /sandboxes/{sbx}', 'bare', { fields: SANDBOX }),
  row('GET /sandboxes/by-name/wire', 'bare', { fields: SANDBOX }),
  row('PATCH /sandboxes/{sbx}', 'bare', { body: { tags: ['a'], always_on: null, timeoutSec: 99 } }),
  row('PATCH /sandboxes/{sbx}/tags', 'bare', { body: { tags: ['b', 'c'] } }),
  row('POST /sandboxes/{sbx}/pause', 'bare', { body: {} }),
  row('POST /sandboxes/{sbx}/resume', 'bare', { body: {} }),
  row('POST /sandboxes/{sbx}/stop', 'bare'),
  row('POST /sandboxes/{sbx}/extend', 'bare', { body: { timeout_sec: 600 } }),
  row('GET /sandboxes/{sbx}/usage', 'data', {
    fields: ['sandbox_id', 'state', 'runtime_sec', 'measurement_status'],
  }),
  row('GET /sandboxes/{sbx}/readiness', 'bare', { fields: ['ready', 'status'] }),
  row('GET /sandboxes/{sbx}/readiness/stream', 'stream'),
  row('POST /sandboxes/{sbx}/files', 'bare', {
    body: { path: '/workspace/index.html', content: b64('<h1>one</h1>') },
    status: [200, 201],
  }),
  row('POST /sandboxes/{sbx}/files/write-many', 'bare', {
    body: { files: [{ path: '/workspace/a/b.txt', content_base64: b64('b') }] },
    fields: ['written', 'failed'],
  }),
  row('POST /sandboxes/{sbx}/exec', 'bare', {
    body: { command: 'echo out; exit 3', timeout: 20 },
    fields: ['stdout', 'stderr', 'exit_code', 'duration_ms'],
  }),
  row('POST /sandboxes/{sbx}/exec/stream', 'stream', { body: { command: 'echo line' } }),
  row('GET /sandboxes/{sbx}/files', 'bare', {
    query: 'path=/workspace&depth=2',
    fields: ['path', 'entries'],
  }),
  row('POST /sandboxes/{sbx}/files/stat', 'bare', {
    body: { path: '/workspace/a/b.txt' },
    fields: ['path', 'size', 'is_dir', 'mode', 'modified_at'],
  }),
  row('GET /sandboxes/{sbx}/files/tree', 'bare', { query: 'path=/workspace', fields: ['type', 'children'] }),
  row('GET /sandboxes/{sbx}/files/read', 'bare', { query: 'path=/workspace/a/b.txt', fields: ['content'] }),
  row('GET /sandboxes/{sbx}/files/workspace/a/b.txt', 'bytes'),
  row('GET /sandboxes/{sbx}/files/watch', 'stream'),
  row('POST /sandboxes/{sbx}/exports', 'data', {
    body: { paths: ['/workspace/a', '/workspace/index.html'], label: 'all' },
    status: 201,
    fields: ['id', 'sandbox_id', 'label', 'status', 'files', 'archive_download_url', 'created_at'],
  }),
  row('GET /sandboxes/{sbx}/exports/download', 'bytes', { query: 'path=/workspace/a/b.txt' }),
  refused('POST /sandboxes/{sbx}/expose'),
  row('POST /sandboxes/{sbx}/snapshots', 'data', {
    body: { comment: 'c', keep: false, expiration_days: 3 },
    status: 201,
    fields: SNAPSHOT,
    keep: { snp: (a) => a.data.id },
  }),
  row('POST /sandboxes/{sbx}/snapshot', 'bare', { body: {}, status: 201, fields: ['snapshot_id'] }),
  row('GET /sandboxes/{sbx}/snapshots', 'list'),
  row('GET /sandboxes/{sbx}/snapshots/{snp}', 'data', { fields: SNAPSHOT }),
  row('POST /sandboxes/{sbx}/restore/{snp}', 'bare', {
    body: {},
    status: 201,
    fields: SANDBOX,
    keep: { copy: (a) => a.id },
  }),
  row('POST /sandboxes/{sbx}/fork', 'bare', { body: { snapshot_id: '{snp}' }, status: 201, fields: SANDBOX }),
  row('DELETE /sandboxes/{copy}', 'bare', { fields: ['id', 'deleted'] }),
  row('DELETE /sandboxes/{sbx}/snapshots/{snp}', 'bare', { fields: ['id', 'deleted'] }),
  row('GET /sandboxes/{sbx}/logs', 'data', { query: 'lines=10', fields: ['lines', 'logs'] }),
  row('GET /sandboxes/{sbx}/logs/stream', 'stream'),
  row('GET /sandboxes/{sbx}/events', 'stream'),
  row('PUT /sandboxes/{sbx}/env', 'list', { body: { vars: [{ key: 'A', value: '1', encrypted: true }] } }),
  row('GET /sandboxes/{sbx}/env', 'list'),
  row('DELETE /sandboxes/{sbx}/env/A', 'bare'),
  row('GET /templates', 'bare', { fields: ['templates', 'shape_contracts'] }),
  row('GET /sandbox-templates', 'list', { fields: ['default_template_id'] }),
];

const keepPublished = { ver: (a: Json) => a.data.version_id, bld: (a: Json) => a.data.version.build_id };
const ENVELOPE = ['deployment_id', 'version_id', 'state', 'url', 'public_url', 'deployment', 'version'];

/** Sections 2.2 and 2.3. */
export const DEPLOYMENTS: Row[] = [
  row('POST /deployments', 'data', {
    body: { name: 'Wire App', auto_deploy: true, metadata: {}, branch: null, external_user_id: 'u 1' },
    status: 201,
    fields: DEPLOYMENT,
    keep: { dep: (a) => a.data.id },
  }),
  row('POST /projects/{prj}/deployments', 'data', {
    body: { name: 'by project', source_type: 'sandbox' },
    status: 201,
    fields: DEPLOYMENT,
    keep: { other: (a) => a.data.id },
  }),
  row('GET /deployments', 'list', { query: 'external_user_id=u%201&limit=1' }),
  row('GET /deployments/{dep}', 'data', { fields: DEPLOYMENT }),
  row('PATCH /deployments/{dep}', 'data', { body: {}, fields: DEPLOYMENT }),
  row('POST /deployments/{dep}/env', 'list', { body: { env: { GREETING: 'hello world' } } }),
  row('GET /deployments/{dep}/env', 'list'),
  row('POST /deployments/{dep}/publish', 'data', {
    body: { source_sandbox_id: '{sbx}', promote: true, kind: 'auto', environment: 'production' },
    status: 202,
    fields: ['deployment', 'version', 'services', 'promoted'],
    keep: keepPublished,
  }),
  row('GET /deployments/{dep}/versions/{ver}', 'data', {
    fields: VERSION,
    until: (a) => a.data.state === 'ready',
    keep: { rel: (a) => a.data.release_id, first: (a) => a.data.id },
  }),
  row('POST /sandboxes/{sbx}/deploy', 'data', {
    body: { deployment_id: '{dep}', name: 'Wire App', outputPath: '/workspace' },
    status: 202,
    fields: ENVELOPE,
    keep: keepPublished,
  }),
  row('GET /deployments/{dep}/versions', 'list', {
    query: 'state=ready&limit=1',
    until: (a) => a.data.length === 1,
  }),
  row('POST /sandboxes/{sbx}/publish', 'data', {
    body: {
      name: 'from the bridge',
      output_path: '/workspace',
      metadata: { environment: 'production' },
      database: false,
    },
    status: 202,
    fields: ENVELOPE,
  }),
  row('GET /deployments/{dep}/versions/{ver}', 'data', { until: (a) => a.data.state === 'ready' }),
  row('POST /deployments/{dep}/rollback', 'data', { fields: [...DEPLOYMENT, 'active_version_id'] }),
  row('POST /deployments/{dep}/versions/{ver}/promote', 'data', { body: {}, fields: ['active_version_id'] }),
  row('POST /deployments/{dep}/releases/{rel}/promote', 'data', {
    body: {},
    fields: ['active_release_id', 'running_artifact_sha256'],
  }),
  row('POST /deployments/{dep}/redeploy', 'data', {
    status: 202,
    fields: ['id', 'tenant_id', 'name', 'slug', 'state'],
  }),
  row('GET /deployments/{dep}/logs', 'data', { query: 'lines=100', fields: ['lines', 'logs'] }),
  row('GET /deployments/{dep}/metrics', 'data', {
    query: 'window=7d',
    fields: ['deployment_id', 'window', 'current'],
  }),
  row('POST /deployments/{dep}/scale', 'data', { body: { instances: 1 } }),
  row('POST /deployments/{dep}/resize', 'data', { body: { size: 'small' } }),
  refused('POST /deployments/{dep}/versions/{ver}/migration-backup'),
  row('GET /deployments/{dep}/versions/{first}/release', 'data', { fields: RELEASE }),
  row('GET /releases/{rel}', 'data', { fields: RELEASE }),
  row('GET /deployments/{dep}/releases', 'list'),
  row('GET /deployments/{dep}/releases/{rel}', 'data', { fields: RELEASE }),
  row('GET /deployments/{dep}/builds', 'list'),
  row('GET /deployments/{dep}/builds/{bld}', 'data', {
    fields: ['id', 'deployment_id', 'state', 'triggered_by'],
  }),
  row('GET /deployments/{dep}/builds/{bld}/logs', 'stream'),
  row('GET /deployments/{app}/runtime-instances', 'list', { keep: { ins: (a) => a.data[0].id } }),
  row('GET /deployments/{app}/runtime-instances/{ins}', 'data', { fields: ['id', 'tenant_id', 'state'] }),
  row('GET /deployments/{app}/runtime-instances/{ins}/logs', 'data', {
    query: 'lines=100',
    fields: ['runtime_instance_id', 'deployment_id', 'log_path', 'logs'],
  }),
  row('DELETE /deployments/{dep}/env/GREETING', 'bare'),
  row('POST /deployments/{dep}/domains', 'data', {
    body: { domain: 'wire.example.com', redirect_policy: 'none' },
    status: 201,
    fields: DOMAIN,
    keep: { dom: (a) => a.data.id },
  }),
  row('GET /deployments/{dep}/domains', 'list'),
  row('PATCH /deployments/{dep}/domains/{dom}', 'data', {
    body: { redirect_policy: 'www_to_apex' },
    fields: DOMAIN,
  }),
  row('POST /deployments/{dep}/domains/{dom}/verify', 'data', { fields: DOMAIN }),
  row('DELETE /deployments/{dep}/domains/{dom}', 'bare'),
  row('POST /custom-domains', 'data', {
    body: { domain: 'flat.example.com', resource_type: 'deployment', resource_id: '{dep}' },
    status: 201,
    fields: [
      'id',
      'tenant_id',
      'domain',
      'state',
      'resource_type',
      'resource_id',
      'verified',
      'verification_token',
    ],
    keep: { dom: (a) => a.data.id },
  }),
  row('GET /custom-domains', 'list'),
  row('DELETE /custom-domains/{dom}', 'bare'),
  row('POST /domains', 'data', {
    body: { domain: 'cli.example.com', deployment_id: '{dep}' },
    status: 201,
    fields: DOMAIN,
  }),
  row('GET /domains/cli.example.com', 'data', { fields: DOMAIN }),
  row('POST /domains/cli.example.com/verify', 'data', { fields: DOMAIN }),
  row('POST /domains/cli.example.com/assign', 'data', { body: { deployment_id: '{other}' }, fields: DOMAIN }),
  row('DELETE /domains/cli.example.com', 'bare'),
  row('DELETE /deployments/{other}', 'bare', { fields: ['id', 'deleted'] }),
];

/** Section 2.4, and the calls that no install of this kind has. */
export const TENANT: Row[] = [
  row('GET /platform/tenants/current', 'data', { fields: ['id', 'name', 'slug', 'plan', 'inserted_at'] }),
  row('POST /api-keys', 'data', {
    body: { name: 'ci', key_type: 'user', purpose: 'tests' },
    status: 201,
    fields: [
      'id',
      'key',
      'key_prefix',
      'name',
      'key_type',
      'key_purpose',
      'rate_limit_rpm',
      'status',
      'created_at',
    ],
    keep: { key: (a) => a.data.id },
  }),
  row('GET /api-keys', 'list'),
  row('DELETE /api-keys/{key}', 'bare'),
  row('GET /events/stream', 'stream', { query: 'types=deployment.*,sandbox.*&from=start' }),
  row('POST /webhooks', 'data', {
    body: { url: 'https://example.com/hook', name: 'n', events: [], headers: { 'X-A': '1' }, retry_count: 3 },
    status: 201,
    fields: ['id', 'url', 'events', 'secret', 'secret_preview'],
    keep: { wh: (a) => a.data.id },
  }),
  row('GET /webhooks', 'list'),
  row('GET /webhooks/{wh}', 'data', { fields: ['id', 'url', 'secret_preview'] }),
  row('PATCH /webhooks/{wh}', 'data', { body: { events: ['deployment.live'] } }),
  row('POST /webhooks/{wh}/test', 'data', { status: [200, 201, 202] }),
  row('GET /webhooks/{wh}/deliveries', 'list'),
  row('DELETE /webhooks/{wh}', 'bare'),
  refused('GET /billing/overview'),
  refused('GET /health-checks'),
  refused('POST /health-checks'),
  refused('GET /health-checks/{sbx}'),
  refused('PATCH /health-checks/{sbx}'),
  refused('DELETE /health-checks/{sbx}'),
  refused('GET /docker-deploy/hosts'),
  refused('GET /docker-deploy/hosts/{sbx}'),
  refused('POST /docker-deploy/hosts/ensure'),
  refused('GET /docker-deploy/templates'),
  refused('GET /docker-deploy/templates/{sbx}'),
  row('DELETE /deployments/{dep}', 'bare', { fields: ['id', 'deleted'] }),
  row('DELETE /sandboxes/{sbx}', 'bare', { fields: ['id', 'deleted'] }),
];

/** Every endpoint, in the order they are matched: fixed paths come before those with a parameter in the same place. */
import { approvalHandlers } from './approval.ts';
import { archiveHandlers } from './archive.ts';
import { auditHandlers } from './audit.ts';
import { buildHandlers } from './build.ts';
import type { Mounted } from './call.ts';
import { deploymentHandlers } from './deployment.ts';
import { domainHandlers } from './domain.ts';
import { envVarHandlers } from './env-var.ts';
import { eventHandlers } from './event.ts';
import { execHandlers } from './exec.ts';
import { exportHandlers } from './export.ts';
import { fileHandlers } from './file.ts';
import { houseHandlers } from './house.ts';
import { imageHandlers } from './image.ts';
import { instanceHandlers } from './instance.ts';
import { keyHandlers } from './key.ts';
import { logHandlers } from './log.ts';
import { operationHandlers } from './operation.ts';
import { promotionHandlers } from './promotion.ts';
import { publishHandlers } from './publish.ts';
import { releaseHandlers } from './release.ts';
import { sandboxHandlers } from './sandbox.ts';
import { sandboxEnvHandlers } from './sandbox-env.ts';
import { sandboxStreamHandlers } from './sandbox-stream.ts';
import { snapshotHandlers } from './snapshot.ts';
import { tenantHandlers } from './tenant.ts';
import { unsupportedHandlers } from './unsupported.ts';
import { versionHandlers } from './version.ts';
import { webhookHandlers } from './webhook.ts';

export const ENDPOINTS: Mounted[] = [
  ...sandboxHandlers,
  ...sandboxEnvHandlers,
  ...sandboxStreamHandlers,
  ...snapshotHandlers,
  ...exportHandlers,
  ...unsupportedHandlers,
  ...archiveHandlers,
  ...fileHandlers,
  ...execHandlers,
  ...publishHandlers,
  ...deploymentHandlers,
  ...versionHandlers,
  ...promotionHandlers,
  ...releaseHandlers,
  ...imageHandlers,
  ...operationHandlers,
  ...buildHandlers,
  ...logHandlers,
  ...instanceHandlers,
  ...envVarHandlers,
  ...eventHandlers,
  ...domainHandlers,
  ...approvalHandlers,
  ...webhookHandlers,
  ...auditHandlers,
  ...keyHandlers,
  ...tenantHandlers,
  ...houseHandlers,
];

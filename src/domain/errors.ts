/**
 * Every error code a caller can meet, in one table: HTTP status, whose fault, and whether the same request may
 * succeed later. The manual (docs/errors.md) is held to this table by a test.
 */
export const ERROR_CODES = {
  INVALID_TOKEN: {
    status: 401,
    fault: 'caller',
    retry: false,
    wire: 'invalid_token',
    about: 'The bearer key is missing, unknown, expired or revoked.',
  },
  INSUFFICIENT_SCOPE: {
    status: 403,
    fault: 'caller',
    retry: false,
    wire: 'insufficient_scope',
    about: 'The key is valid but lacks the scope this call needs.',
  },
  FORBIDDEN: {
    status: 403,
    fault: 'caller',
    retry: false,
    wire: 'FORBIDDEN',
    about: 'The key may not do this to this object.',
  },
  APPROVAL_REQUIRED: {
    status: 403,
    fault: 'caller',
    retry: false,
    wire: 'APPROVAL_REQUIRED',
    about:
      'This key may only propose a promotion. `details.approval_id` waits for somebody to approve it: POST /approvals/{id}/approve.',
  },
  FORBIDDEN_PATH: {
    status: 403,
    fault: 'caller',
    retry: false,
    wire: 'FORBIDDEN_PATH',
    about: 'The file path leaves the workspace.',
  },
  NOT_FOUND: {
    status: 404,
    fault: 'caller',
    retry: false,
    wire: 'NOT_FOUND',
    about: 'No such object (or it belongs to another tenant), or no such route.',
  },
  METHOD_NOT_ALLOWED: {
    status: 405,
    fault: 'caller',
    retry: false,
    wire: 'METHOD_NOT_ALLOWED',
    about: 'The path exists, the method does not.',
  },
  MALFORMED_REQUEST: {
    status: 400,
    fault: 'caller',
    retry: false,
    wire: 'MALFORMED_REQUEST',
    about: 'What was sent is not HTTP, or its host or path cannot be one.',
  },
  HEADERS_TOO_LARGE: {
    status: 431,
    fault: 'caller',
    retry: false,
    wire: 'HEADERS_TOO_LARGE',
    about: 'The request line and headers together are over 64 KiB.',
  },
  REQUEST_TIMEOUT: {
    status: 408,
    fault: 'caller',
    retry: true,
    wire: 'REQUEST_TIMEOUT',
    about: 'The headers of the request did not arrive within 30 seconds.',
  },
  INVALID_JSON: {
    status: 400,
    fault: 'caller',
    retry: false,
    wire: 'INVALID_JSON',
    about: 'The body is not valid JSON.',
  },
  INVALID_ID: {
    status: 400,
    fault: 'caller',
    retry: false,
    wire: 'INVALID_ID',
    about: 'A path segment cannot be an id (it holds control characters or is too long).',
  },
  INVALID_CURSOR: {
    status: 400,
    fault: 'caller',
    retry: false,
    wire: 'INVALID_CURSOR',
    about: 'The pagination cursor was not made by this list.',
  },
  MISSING_PARAM: {
    status: 400,
    fault: 'caller',
    retry: false,
    wire: 'MISSING_PARAM',
    about: 'A required query parameter is missing.',
  },
  INVALID_ARCHIVE: {
    status: 422,
    fault: 'caller',
    retry: false,
    wire: 'INVALID_ARCHIVE',
    about: 'The uploaded archive is malformed or holds entries that leave the workspace.',
  },
  VALIDATION_ERROR: {
    status: 422,
    fault: 'caller',
    retry: false,
    wire: 'VALIDATION_ERROR',
    about: 'One or more fields are wrong; `errors` has a message per field.',
  },
  NO_PLAN: {
    status: 422,
    fault: 'user',
    retry: false,
    wire: 'NO_PLAN',
    about: 'Nothing in the source says how to build it.',
  },
  FILE_TOO_LARGE: {
    status: 413,
    fault: 'caller',
    retry: false,
    wire: 'FILE_TOO_LARGE',
    about: 'A file or body is over the size limit.',
  },
  SOURCE_TOO_LARGE: {
    status: 413,
    fault: 'user',
    retry: false,
    wire: 'SOURCE_TOO_LARGE',
    about: 'The source is over the size or file-count limit.',
  },
  IDEMPOTENCY_KEY_REUSED: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'IDEMPOTENCY_KEY_REUSED',
    about: 'The Idempotency-Key was used before with a different request.',
  },
  VERSION_NOT_READY: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'VERSION_NOT_READY',
    about: 'The version is not ready or archived, so it cannot become active.',
  },
  NO_PREVIOUS_VERSION: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'NO_PREVIOUS_VERSION',
    about: 'There is no earlier version to roll back to.',
  },
  CONFLICT: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'CONFLICT',
    about: 'The object is not in a state that allows this, or the name is taken.',
  },
  SANDBOX_NOT_RUNNING: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'SANDBOX_NOT_RUNNING',
    about: 'The sandbox is stopped or destroyed.',
  },
  SUPERSEDED: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'SUPERSEDED',
    about: 'A newer publish, promote or rollback is in force; this one did not switch.',
  },
  HEALTH_GATE_FAILED: {
    status: 409,
    fault: 'user',
    retry: false,
    wire: 'HEALTH_GATE_FAILED',
    about: 'The target version did not become healthy; production is unchanged.',
  },
  ARTIFACT_GONE: {
    status: 410,
    fault: 'caller',
    retry: false,
    wire: 'ARTIFACT_GONE',
    about: 'The artifact of this version was collected by retention; publish again.',
  },
  UNSUPPORTED: {
    status: 422,
    fault: 'caller',
    retry: false,
    wire: 'UNSUPPORTED',
    about: 'This install cannot do that; the message says what is missing.',
  },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    fault: 'caller',
    retry: false,
    wire: 'UNSUPPORTED_MEDIA_TYPE',
    about: 'The body has a content type this route does not take.',
  },
  TOO_MANY: {
    status: 409,
    fault: 'caller',
    retry: false,
    wire: 'TOO_MANY',
    about: 'A count limit is reached (sandboxes, deployments, queued publishes, …).',
  },
  RATE_LIMITED: {
    status: 429,
    fault: 'caller',
    retry: true,
    wire: 'rate_limit_exceeded',
    about: 'Too many requests with this key; see Retry-After.',
  },
  SNAPSHOT_FAILED: {
    status: 500,
    fault: 'engine',
    retry: true,
    wire: 'SNAPSHOT_FAILED',
    about:
      'The source could not be frozen (unreadable or ever-changing file, named in the message). No version was made.',
  },
  STORAGE_FAILED: {
    status: 503,
    fault: 'engine',
    retry: true,
    wire: 'STORAGE_FAILED',
    about: 'The object store did not take or give an object.',
  },
  UNAVAILABLE: {
    status: 503,
    fault: 'engine',
    retry: true,
    wire: 'UNAVAILABLE',
    about: 'The engine is starting or stopping.',
  },
  INTERNAL_ERROR: {
    status: 500,
    fault: 'engine',
    retry: true,
    wire: 'INTERNAL_ERROR',
    about: 'A fault of the engine; the log has it under the request id.',
  },
} as const satisfies Record<
  string,
  { status: number; fault: 'caller' | 'user' | 'engine'; retry: boolean; wire: string; about: string }
>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** An expected error with a code of the table. The message says what happened and what to do next. */
export class KilnError extends Error {
  readonly code: ErrorCode;
  /** Field name to messages, for validation errors. */
  readonly fields: Record<string, string[]> | undefined;
  readonly details: Record<string, unknown> | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    more: { fields?: Record<string, string[]>; details?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'KilnError';
    this.code = code;
    this.fields = more.fields;
    this.details = more.details;
  }
}

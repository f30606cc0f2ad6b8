/** One mutation that somebody asked for, and how it ended. Holds names of fields, never their values. */
export interface AuditEntry {
  id: string;
  tenant_id: string;
  key_id: string;
  key_name: string;
  /** Name of the operation in the OpenAPI document. */
  action: string;
  method: string;
  path: string;
  /** Path parameters: which object. */
  params: Record<string, string>;
  /** Known fields that the body had. */
  fields: string[];
  remote_address: string | null;
  user_agent: string | null;
  request_id: string;
  /** Null: the engine ended before the answer; look at the object. */
  status: number | null;
  error_code: string | null;
  created_at: Date;
  finished_at: Date | null;
}

/** Opaque labels of the caller's own system; never grant access, copied onto child rows, usable as list filters. */
export interface Attribution {
  external_workspace_id: string | null;
  external_user_id: string | null;
  external_project_id: string | null;
}

/** Who owns a row. The tenant always comes from the key, never from a body. */
export interface Ownership extends Attribution {
  tenant_id: string;
  workspace_id: string;
  project_id: string;
}

/** What a rebuild from the stored snapshot gave, compared with the stored release. */
export interface Verification {
  /** The rebuilt release has the digest of the stored one. */
  reproducible: boolean;
  stored_sha256: string;
  rebuilt_sha256: string;
  /** At most 200 of them, by path. */
  differences: Difference[];
  differences_total: number;
}

export interface Difference {
  path: string;
  /** `added`, `missing`: only in the rebuilt, or only in the stored release. */
  what: 'content' | 'mode' | 'type' | 'link' | 'added' | 'missing';
}

import { lstatSync } from 'node:fs';
import { makeExclusion, type Wanted } from './exclude.ts';
import { type Listing, settleListing, sortByBytes } from './listing.ts';
import { statPaths } from './stat.ts';
import { Folders } from './tree.ts';
import { readRules, walkSteps } from './walk.ts';

/** Exclusion rules as data, so that they can be sent to a thread. */
export interface SourceRules {
  output_path: string | null;
  include_git: boolean;
  keep_outputs: boolean;
  wanted?: Wanted;
}

export interface SurveyTask {
  kind: 'survey';
  root: string;
  rules: SourceRules;
  max_entries: number;
  /** Folders to look into, '' for the root. */
  from: string[];
  /** Stop when there are so many folders left to look into. */
  share_at: number | null;
}

export interface Survey {
  listing: Listing;
  /** Top-most paths left out, at most 100 of each kind; folders end in '/'. */
  left_out: string[];
  secrets_left_out: string[];
  /** Folders that are listed but not looked into yet. */
  unread: string[];
}

/** One thread's part. `root` is a real path. */
export function surveyInThread(task: SurveyTask): Survey {
  const { root, max_entries, from, share_at } = task;
  const exclusion = makeExclusion({
    ...task.rules,
    kilnignore: readRules(root),
    exists: (rel) => lstatSync(`${root}/${rel}`, { throwIfNoEntry: false }) !== undefined,
  });
  const steps = walkSteps(root, exclusion, { max_entries, from, share_at });
  let step = steps.next();
  while (!step.done) step = steps.next();
  const { folders, left_out, secrets_left_out, unread } = step.value;
  const paths = sortByBytes(step.value.paths);
  const tree = new Folders(root);
  try {
    const listing = settleListing({ paths, rows: statPaths(tree, paths) }, folders);
    return { listing, left_out, secrets_left_out, unread };
  } finally {
    tree.close();
  }
}

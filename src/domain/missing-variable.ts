/** An environment variable that a program says it lacks, in one line of what it wrote; null when it says no such thing. */

const NAME = '([A-Z][A-Z0-9]*_[A-Z0-9_]+)';
/** `X is not set`, `missing environment variable X`, `Environment variable not found: X`, Python's `KeyError: 'X'`. */
const MISSING = new RegExp(
  `\\b${NAME}\\b.{0,40}\\b(?:not set|not defined|undefined|missing|required|must be set)\\b` +
    `|\\b(?:missing|not found|set|requires?)\\b.{0,40}\\b${NAME}\\b|KeyError: '([A-Z][A-Z0-9_]+)'`,
  'i',
);
/** A compiler misses much that is no variable of the environment: here the line has to say so. */
const MISSING_IN_BUILD = new RegExp(
  `environment variables?\\b.{0,30}\\b(?:not found|not set|missing|required)\\b\\W{0,5}${NAME}\\b` +
    `|\\b(?:missing|required?s?)\\b.{0,20}\\benvironment variables?\\b\\W{0,5}${NAME}\\b` +
    `|\\b${NAME}\\b\\W{0,3}(?:environment variable is (?:not set|required|missing)|(?:is|was) (?:not set|unset)|must be set)\\b|KeyError: '([A-Z][A-Z0-9_]+)'`,
  'i',
);

/** Of an app that ended at its start. */
export const missingVariable = (line: string): string | null => named(MISSING.exec(line.slice(0, 500)));

/** Of a build that failed. */
export const missingBuildVariable = (line: string): string | null =>
  named(MISSING_IN_BUILD.exec(line.slice(0, 500)));

function named(found: RegExpExecArray | null): string | null {
  const name = found?.slice(1).find((one) => one !== undefined);
  return name !== undefined && name === name.toUpperCase() ? name : null;
}

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { testDatabase } from '../store/database.fixture.ts';
import { type ObjectReference, REASONS_TO_KEEP, type StoredObject } from '../store/object.ts';
import { collecting } from './retention.fixture.ts';
import { judge } from './retention.ts';

const DAY_MS = 24 * 3600 * 1000;

describe('what retention may take', () => {
  const now = new Date('2026-06-01T00:00:00Z');
  const days_ago = (days: number) => new Date(now.getTime() - days * DAY_MS);
  const object = (age_days: number): StoredObject => ({
    key: 'k',
    kind: 'release',
    size_bytes: 1,
    created_at: days_ago(age_days),
    last_used_at: days_ago(age_days),
  });
  const reference = (why: ObjectReference['why'], age_days: number) => ({
    why,
    what: 'version 3 of shop',
    since: days_ago(age_days),
  });

  for (const why of REASONS_TO_KEEP)
    test(`never what is ${why}, however old`, () => {
      assert.equal(judge(object(999), [reference('older', 999), reference(why, 999)], now, 30).keep, true);
    });
  test('old versions keep theirs until their time is over', () => {
    assert.equal(judge(object(40), [reference('older', 29)], now, 30).keep, true);
    assert.deepEqual(judge(object(40), [reference('older', 31)], now, 30), {
      keep: false,
      reason: 'only versions older than 30 days refer to it',
    });
  });
  test('what nothing refers to goes after the same time, and never while it is fresh', () => {
    assert.equal(judge(object(31), [], now, 30).keep, false);
    assert.equal(judge(object(29), [], now, 30).keep, true);
    assert.equal(judge(object(0), [reference('older', 99)], now, 0).keep, true);
  });
});

collecting('embedded', testDatabase);

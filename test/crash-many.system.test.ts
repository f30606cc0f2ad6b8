/**
 * A hundred kills at random instants; those at chosen ones are in crash.test.ts. Two engines in folders of their own
 * take half of them each: while one starts or waits for a publish, the other has the processor.
 */
import { describe, test } from 'node:test';
import { Crashes } from './support/crashes.ts';

const ENGINES = 2;
const CRASHES = 100;

describe('kill -9 at random instants', { concurrency: ENGINES }, () => {
  for (let engine = 1; engine <= ENGINES; engine++)
    test(`${CRASHES / ENGINES} times, engine ${engine}`, { timeout: CRASHES * 30_000 }, async () => {
      const crashes = await Crashes.open();
      try {
        await crashes.atRandomInstants(CRASHES / ENGINES);
      } finally {
        await crashes.close();
      }
    });
});

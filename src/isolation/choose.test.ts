import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KilnError } from '../domain/errors.ts';
import { chooseDriver } from './choose.ts';
import type { DriverName, IsolationDriver, SelfTest } from './driver.ts';

const OPTIONS = { data_dir: '/data', work_dir: '/data/machines', host_env: {} };
const WORKS: SelfTest = { ok: true, detail: 'fine' };
const FAILS: SelfTest = { ok: false, reason: 'namespaces are refused', install: 'Allow them.' };

function drivers(bubblewrap: SelfTest, plain: SelfTest): NonNullable<Parameters<typeof chooseDriver>[2]> {
  const make = (name: DriverName, test: SelfTest) => () =>
    ({ name, selfTest: async () => test }) as IsolationDriver;
  return [
    ['bubblewrap', make('bubblewrap', bubblewrap)],
    ['process', make('process', plain)],
  ];
}

describe('chooseDriver', () => {
  it('auto takes the strongest that works, and explains the others', async () => {
    assert.equal((await chooseDriver('auto', OPTIONS, drivers(WORKS, WORKS))).driver.name, 'bubblewrap');
    const { driver, explain } = await chooseDriver('auto', OPTIONS, drivers(FAILS, WORKS));
    assert.equal(driver.name, 'process');
    assert.deepEqual(explain, [
      { name: 'bubblewrap', ok: false, detail: 'namespaces are refused', install: 'Allow them.' },
      { name: 'process', ok: true, detail: 'fine', install: null },
    ]);
  });

  it('a named one is taken, or refused with what to do', async () => {
    const { driver, explain } = await chooseDriver('process', OPTIONS, drivers(WORKS, WORKS));
    assert.deepEqual([driver.name, explain.length], ['process', 1]);
    await assert.rejects(chooseDriver('bubblewrap', OPTIONS, drivers(FAILS, WORKS)), (error) => {
      assert.ok(error instanceof KilnError && error.code === 'UNSUPPORTED');
      assert.match(error.message, /namespaces are refused\. Allow them\./);
      return true;
    });
    await assert.rejects(chooseDriver('auto', OPTIONS, drivers(FAILS, FAILS)), /isolation `auto`/);
  });
});

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Bench, openBench } from '../contract/harness.ts';
import { bubblewrapDriver } from './driver.ts';

describe('the environment of a machine with a way out', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench(bubblewrapDriver);
  });
  after(() => bench.close());

  it('decides nothing before the command starts, and is all there then', async (t) => {
    const test = await bench.driver.selfTest();
    if (!test.ok) return t.skip(`bubblewrap does not work here: ${test.reason}`);
    const workspace_dir = await bench.newWorkspace();
    await mkdir(join(workspace_dir, 'bin'));
    // File 5 is the launcher's channel to the engine, which trusts what is written there to be a message.
    await writeFile(join(workspace_dir, 'bin/env'), '#!/bin/sh\necho garbage >&5\nexit 1\n', { mode: 0o755 });
    const env = {
      PATH: '/workspace/bin:/usr/bin:/bin',
      ODD: `a "b" 'c' $(echo d) \\ \n*`,
      UID: '7',
      OPTIND: '3',
      IFS: 'a',
      PWD: '/x',
      KILN_HELD_0: 'mine',
    };
    const names = ['PATH', 'ODD', 'UID', 'KILN_HELD_0', 'KILN_HELD', 'KILN_HELD_1'];
    const { stdout, stderr, machine } = await bench.run(`cat /proc/$$/environ`, { workspace_dir, env });
    assert.equal((await machine.exited).exit_code, 0, stderr());
    const seen = new Map(
      stdout()
        .split('\0')
        .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
    );
    assert.deepEqual(
      names.map((name) => seen.get(name)),
      [env.PATH, env.ODD, env.UID, env.KILN_HELD_0, undefined, undefined],
    );
  });
});

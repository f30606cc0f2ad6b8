import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Bench, newMark, processesWith, type RunOptions } from './harness.ts';

const MIB = 1024 * 1024;

/** Each limit: exceeded in an ordinary way, and in ways meant to get around it. Nothing may be left afterwards. */
export function limitCases(bench: () => Bench): void {
  async function exceeds(reason: string, command: string, o: RunOptions, within_ms = 8000): Promise<void> {
    const mark = newMark();
    const { exit, stderr } = await bench().run(`sleep ${mark} & ${command}`, o);
    assert.equal(exit.reason, reason, `${JSON.stringify(exit)} ${stderr().slice(0, 500)}`);
    assert.ok(exit.duration_ms < within_ms * bench().patience, `took ${exit.duration_ms} ms`);
    assert.deepEqual(processesWith(mark), []);
  }

  it('time', async () => {
    await exceeds('timed_out', 'trap "" TERM; while :; do sleep 1; done', { limits: { time_ms: 300 } }, 2000);
  });

  it('memory of one process', async () => {
    const eat = 'const a=[];setInterval(()=>a.push(Buffer.alloc(16e6,1)),5)';
    await exceeds('out_of_memory', `node -e "${eat}"`, { limits: { memory_bytes: 200 * MIB } });
  });

  it('memory of several processes together', async () => {
    const eat = 'const a=Buffer.alloc(60e6,1);setInterval(()=>a[0],1000)';
    const script = `for i in 1 2 3 4; do node -e "${eat}" & done; wait`;
    await exceeds('out_of_memory', script, { limits: { memory_bytes: 240 * MIB } });
  });

  it('memory: pages shared between processes count once', async () => {
    const script = "for i in 1 2 3; do node -e 'setTimeout(()=>{},700)' & done; wait";
    const { exit } = await bench().run(script, { limits: { memory_bytes: 130 * MIB } });
    assert.equal(exit.reason, 'exited', `${exit.peak_memory_bytes}`);
  });

  it('processes', async () => {
    const script = 'i=0; while [ $i -lt 80 ]; do sleep 86400 & i=$((i+1)); done; wait';
    await exceeds('too_many_processes', script, { limits: { processes: 40 } });
  });

  it('processes: a fork bomb', async () => {
    // Doubles like the classic bomb, but ends at 2^11 processes: a failing test must not take the machine with it.
    const bomb =
      'b() { if [ $1 -gt 10 ]; then exec sleep 20; fi; b $(($1 + 1)) & b $(($1 + 1)) & wait; }; b 0';
    await exceeds('too_many_processes', bomb, { limits: { processes: 40 } });
  });

  it('disk: many files in the workspace', async () => {
    const script =
      'i=0; while [ $i -lt 400 ]; do dd if=/dev/zero of=f$i bs=1M count=1 2>/dev/null; i=$((i+1)); sleep 0.01; done; sleep 20';
    await exceeds('out_of_disk', script, { limits: { disk_bytes: 24 * MIB } });
  });

  it('disk: /tmp, and files that are open but unlinked', async () => {
    await exceeds('out_of_disk', 'for i in 1 2 3 4; do head -c 8M /dev/zero > $TMPDIR/$i; done; sleep 20', {
      limits: { disk_bytes: 24 * MIB },
    });
    const hide =
      "const fs=require('fs');for(let i=0;i<4;i++){const f=fs.openSync('x','w');fs.unlinkSync('x');fs.writeSync(f,Buffer.alloc(8e6,1))};setInterval(()=>0,1e3)";
    await exceeds('out_of_disk', `node -e "${hide}"`, { limits: { disk_bytes: 24 * MIB } });
  });

  it('disk: one file larger than the limit is cut off by the kernel', async () => {
    const script = 'exec head -c 64M /dev/zero > big';
    const { exit, stderr } = await bench().run(script, { limits: { disk_bytes: 8 * MIB } });
    assert.notEqual(exit.exit_code, 0);
    assert.ok(exit.reason === 'out_of_disk' || /too large/i.test(stderr()), JSON.stringify(exit));
  });

  it('disk: what was there before does not count', async () => {
    const workspace_dir = await bench().newWorkspace();
    await bench().run('head -c 20M /dev/zero > old', { workspace_dir });
    const o = { workspace_dir, limits: { disk_bytes: 8 * MIB } };
    const { exit } = await bench().run('head -c 2M /dev/zero > new; sleep 1.6', o);
    assert.equal(exit.reason, 'exited');
  });

  it('output: killed, with a last line that says why', async () => {
    const lines: string[] = [];
    await exceeds('log_limit', 'yes', {
      limits: { log_bytes: 10_000 },
      on_output: (_, chunk) => lines.push(chunk.toString()),
    });
    const text = lines.join('');
    assert.ok(text.length < 10_200, `${text.length}`);
    assert.match(text, /\[kiln\] more than 10000 bytes of output/);
  });

  it('output: dropped, and the app goes on', async () => {
    const script = 'head -c 3000000 /dev/zero | tr "\\0" x; exit 4';
    const limits = { log_bytes: 10_000, on_log_limit: 'drop' } as const;
    const { exit, stdout, stderr } = await bench().run(script, { limits });
    assert.deepEqual([exit.reason, exit.exit_code, stdout().length], ['exited', 4, 10_000]);
    assert.equal(stderr().split('[kiln]').length, 2);
  });

  it('an output handler that throws changes nothing', async () => {
    const { exit } = await bench().run('echo a; echo b; exit 5', {
      on_output: () => {
        throw new Error('full');
      },
    });
    assert.equal(exit.exit_code, 5);
  });
}

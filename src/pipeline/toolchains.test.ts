import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryFiles } from '../build/files.ts';
import { makePlan } from '../build/plan.ts';
import type { ToolOffer } from '../isolation/driver.ts';
import type { Run } from './run.ts';
import { withToolchains } from './toolchains.ts';

const noted: string[] = [];
const run = { log: { note: (line: string) => noted.push(line) } } as unknown as Pick<Run, 'log'>;
const has = (offer: ToolOffer) => ({ tools: async () => offer });

function planOf(files: Record<string, string>) {
  const result = makePlan(memoryFiles(files), { overrides: {} });
  assert.ok(result.ok);
  return result.plan;
}

const ruby = planOf({ '.ruby-version': '3.4.1\n', 'server.rb': "TCPServer.new(ENV['PORT'])\n" });

test('what is not there fails before anything runs, with what to do', async () => {
  for (const offered of [[], [{ name: 'ruby', version: '3.1.2' }]]) {
    const result = await withToolchains(run, has({ offered, looked_for: ['ruby'] }), ruby);
    assert.ok(!result.ok);
    assert.equal(result.failure.code, 'TOOLCHAIN_MISSING');
    assert.match(result.failure.message, /\.ruby-version .*ruby 3\.4\.1/);
    assert.ok(noted.includes(result.failure.message), 'the build log says it too');
  }
});

test('what is nearly there is used and said so; a driver that cannot say leaves it to the build', async () => {
  const near = await withToolchains(
    run,
    has({ offered: [{ name: 'ruby', version: '3.4.7' }], looked_for: ['ruby'] }),
    ruby,
  );
  assert.ok(near.ok);
  assert.match(near.value.warnings.join(), /pins ruby 3\.4\.1; the build uses 3\.4\.7/);
  for (const driver of [{}, has({ offered: [], looked_for: ['node'] })]) {
    const unknown = await withToolchains(run, driver, ruby);
    assert.ok((unknown.ok && unknown.value === ruby) || (unknown.ok && unknown.value.start === ruby.start));
  }
});

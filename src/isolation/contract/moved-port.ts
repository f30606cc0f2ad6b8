import assert from 'node:assert/strict';
import { it } from 'node:test';
import { choosePort } from '../../engine/ports.ts';
import { type Bench, until } from './harness.ts';

const SERVERS: Record<string, string> = {
  node: `node -e "require('http').createServer((q, s) => s.end('moved')).listen($WANTED)"`,
  python3: `cd "$TMPDIR"; echo moved > index.html; python3 -m http.server $WANTED`,
  ruby: `ruby -rsocket -e 's = TCPServer.new(ENV["WANTED"].to_i); loop { c = s.accept; c.gets; c.write "HTTP/1.0 200 OK\\r\\n\\r\\nmoved"; c.close }'`,
};

/** An app that insists on a port which somebody else has. */
export function movedPortCases(bench: () => Bench): void {
  for (const [tool, command] of Object.entries(SERVERS))
    it(`instance: ${tool} code that insists on a port listens on the one the instance was given`, async (t) => {
      const { driver } = bench();
      if (driver.capabilities.own_kernel || driver.base_image)
        return t.skip(`machines of ${driver.name} have ports of their own`);
      const offered = (await driver.tools?.())?.offered ?? [];
      if (!offered.some(({ name }) => name === tool)) return t.skip(`there is no ${tool}`);
      const taken = new Set<number>();
      const [declared, assigned] = [await choosePort(null, taken), await choosePort(null, taken)];
      const { machine } = await bench().start(command, {
        kind: 'instance',
        env: { WANTED: String(declared) },
        moved_port: { declared, assigned },
        limits: { time_ms: null },
      });
      try {
        await until('it listens', async () => (await machine.listening()).length > 0);
        const ports = (await machine.listening()).map(({ port }) => port);
        assert.deepEqual([...new Set(ports)], [assigned]);
        const answer = await fetch(`http://127.0.0.1:${assigned}`);
        assert.equal((await answer.text()).trim(), 'moved');
      } finally {
        await machine.stop(0);
      }
    });

  it('build, exec: nothing of that is there, whatever is asked', async () => {
    const script = 'env; ls /kiln/moved-port 2>/dev/null; ls "$HOME/.." || true';
    const moved_port = { declared: 3000, assigned: 3001 };
    for (const kind of ['build', 'exec'] as const)
      assert.doesNotMatch((await bench().run(script, { kind, moved_port })).stdout(), /moved.port|KILN_PORT/);
  });
}

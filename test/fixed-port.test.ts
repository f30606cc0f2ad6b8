/** Apps that listen on one port whatever PORT says: published again, in several copies, and back, where instances share the host's ports. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { choosePort } from '../src/engine/ports.ts';
import { writeApp } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { type Kiln, startKiln } from './support/kiln.ts';
import { works } from './support/programs.ts';

const made: string[] = [];
const app = async (files: Record<string, string>) => {
  const dir = await writeApp(files);
  made.push(dir);
  return dir;
};
after(() => Promise.all(made.map((dir) => rm(dir, { recursive: true, force: true }))));

/** The port is put together, so that planning does not find it. */
const node = (port: number, text: string) =>
  app({
    'package.json': '{"name":"fixed","scripts":{"start":"node s.js"}}',
    's.js': `const at = Number('${String(port).slice(0, 2)}' + '${String(port).slice(2)}');
const app = require('http').createServer((q, r) => r.end('${text}'));
app.listen(at, () => console.log('listening'));`,
  });
const python = (port: number, text: string) =>
  app({
    'main.py': `import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'${text}')
at = int('${String(port).slice(0, 2)}' + '${String(port).slice(2)}')
http.server.ThreadingHTTPServer(('', at), Handler).serve_forever()
`,
  });

const LANGUAGES = [
  ['Node', node, true],
  ['Python', python, works('python3', '-c', 'import http.server')],
] as const;

for (const isolation of ['process', 'bubblewrap'] as const) {
  const skip =
    isolation === 'bubblewrap' && !works('bwrap', '--dev-bind', '/', '/', 'true')
      ? 'bubblewrap does not work here'
      : false;
  describe(`apps on a fixed port, ${isolation}`, { skip }, () => {
    let kiln: Kiln;
    before(async () => {
      kiln = await startKiln({ isolation });
    });
    after(() => kiln.close());

    const instances = async (deployment_id: string): Promise<Json[]> =>
      (await kiln.ask('GET', `/deployments/${deployment_id}/runtime-instances`)).filter(
        (one: Json) => one.state !== 'stopped',
      );
    const until = async (holds: () => Promise<boolean>) => {
      for (const end = Date.now() + 30_000; !(await holds()); ) {
        assert.ok(Date.now() < end, 'not within 30 s');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };

    for (const [language, source, there] of LANGUAGES)
      test(`${language}: what the failure advises works for every later publish, replicas and rollback`, async (t) => {
        if (!there) return t.skip(`${language} is not here`);
        const port = await choosePort(null, new Set());
        const deployment = await kiln.deployment(`${language}-${isolation}`.toLowerCase());
        const deployment_id = deployment.id;
        // What is told does not depend on the driver, and takes its time: the app may yet listen where it should.
        if (isolation === 'process') {
          const { version } = await kiln.publish(await source(port, 'one'), {
            ...{ deployment_id, startup_timeout_ms: 10_000 },
          });
          assert.equal(version.failure?.code, 'WRONG_PORT', JSON.stringify(version.failure));
          assert.match(version.failure.next_step, new RegExp(`--port ${port}\\b`));
        }
        const publish = async (text: string) => {
          const { version } = await kiln.publish(await source(port, text), { deployment_id, port });
          assert.equal(version.state, 'ready', JSON.stringify(version.failure));
          assert.equal((await kiln.get(deployment)).body, text);
          return version;
        };
        const first = await publish('one');
        assert.deepEqual(
          (await instances(deployment_id)).map((one) => one.port),
          [port],
        );
        await publish('two');
        await kiln.ask('POST', `/deployments/${deployment_id}/scale`, { instances: 2 });
        await until(async () => {
          const rows = await instances(deployment_id);
          return rows.filter((one) => one.role === 'live' && one.state === 'healthy').length === 2;
        });
        const third = await publish('three');
        const live = (await instances(deployment_id)).filter((one) => one.version_id === third.id);
        assert.equal(new Set(live.map((one) => one.port)).size, 2);

        const back = `/deployments/${deployment_id}/rollback`;
        await kiln.ask('POST', `${back}?wait=60`, { version_id: first.id });
        await until(async () => (await kiln.get(deployment)).body === 'one');
      });

    test('an app that Kiln cannot move is told who holds its port, before and after', async () => {
      const port = await choosePort(null, new Set());
      const run_command = 'env -u NODE_OPTIONS node s.js';
      const first = await kiln.publish(await node(port, 'one'), { name: 'alone', port, run_command });
      assert.equal(first.version.state, 'ready', JSON.stringify(first.version.failure));
      const second = await kiln.publish(await node(port, 'two'), {
        deployment_id: first.deployment.id,
        ...{ port, run_command },
      });
      assert.equal(second.version.state, 'failed');
      const held = `ort ${port} is held by version 1 of alone, which is live`;
      assert.match(second.version.failure.message, new RegExp(held));
      assert.match(second.version.failure.next_step, /environment variable PORT.*--isolation docker/);
      const log = await kiln.buildLog(first.deployment.id, second.version.build_id);
      assert.match(log, new RegExp(`p${held}`));
      assert.doesNotMatch(log, /warning: port/, 'it is for the log: most apps start all the same');
      assert.equal((await kiln.get(first.deployment)).body, 'one');
    });
  });
}

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PlanOverrides } from '../../domain/plan.ts';
import { memoryFiles } from '../files.ts';
import { makePlan } from '../plan.ts';
import { portInCommand } from './port.ts';

function portOf(source: Record<string, string>, overrides: PlanOverrides = {}): number | null {
  const result = makePlan(memoryFiles(source), { overrides });
  assert.ok(result.ok, result.ok ? '' : result.refusal.message);
  assert.deepEqual(
    result.plan.warnings.filter((line) => line.includes('fixes port')),
    [],
    'code that Kiln moves is no reason for a warning',
  );
  return result.plan.port;
}
const node = (code: string, start = 'node index.js', more: Record<string, string> = {}) => ({
  'package.json': JSON.stringify({ scripts: { start }, dependencies: { express: '5' } }),
  'index.js': code,
  ...more,
});
const python = (code: string) => ({
  'main.py': `import http.server\n${code}\nif __name__ == '__main__': pass\n`,
});

describe('a port that the code fixes', () => {
  for (const [code, port] of [
    ['app.listen(3000)', 3000],
    ["app.listen('3000', '0.0.0.0')", 3000],
    ['app.listen({ port: 3000 })', 3000],
    ['serve({ fetch: app.fetch, port: 3000 })', 3000],
    ['const port = 3000;\napp.listen(port)', 3000],
    ['const db = { port: 5432 };\napp.listen(3000)', 3000],
    ['const backend = { port: 8081 };\napp.listen(3000)', 3000],
    ['const db = { port: 5432 };\nconst at = { port: 3000 };\napp.listen(at.port)', 3000],
    ['const db = { port: 5432 };\napp.listen(config.at)', null],
    ['app.listen(process.env.PORT || 3000)', null],
    ["app.listen(process.env['PORT'] ?? 3000)", null],
    ['const { PORT = 3000 } = process.env;\napp.listen(PORT)', null],
    ['const { HOST, PORT } = process.env;\nconst port = PORT || 3000;\napp.listen(port)', null],
    ['import { env } from "node:process";\nconst port = env.PORT ?? 3000;\napp.listen(port)', null],
  ] as const)
    it(`Node: ${code.replaceAll('\n', ' ')}`, () => assert.equal(portOf(node(code)), port));

  for (const [code, port] of [
    ["app.run(host='0.0.0.0', port=5000)", 5000],
    ["http.server.HTTPServer(('', 8000), H).serve_forever()", 8000],
    ['db = connect(port=5432)\napp.run(port=5000)', 5000],
    ["backend = Client(port=8081)\nserve(app, host='0.0.0.0', port=8080)", 8080],
    ['app.listen(8888)', 8888],
    ['PORT = 8000\nserve(PORT)', 8000],
    ["await asyncio.start_server(handle, '0.0.0.0', 4567)", 4567],
    ['await loop.create_server(lambda: Echo(), None, 4567)', 4567],
    ["asyncio.open_connection('10.0.0.5', 4567)", null],
    ["app.run(port=int(os.environ.get('PORT', 5000)))", null],
    ["port = os.getenv('PORT') or 5000\napp.run(port=5000)", null],
    ['db = connect(port=5432)', null],
  ] as const)
    it(`Python: ${code.replaceAll('\n', ' ')}`, () => assert.equal(portOf(python(code)), port));

  it('counts too where a command is given that starts it, unless it hands PORT over', () => {
    const source = node('app.listen(3000)');
    assert.equal(portOf(source, { run_command: 'node index.js' }), 3000);
    assert.equal(portOf(source, { run_command: 'node index.js --at $PORT' }), null);
    assert.equal(portOf(source, { run_command: 'node index.js --port 4000' }), 4000);
    assert.equal(portOf(source, { run_command: 'node index.js', port: 5000 }), 5000);
    const flask = {
      'requirements.txt': 'flask==3.1.2',
      'app.py': 'from flask import Flask\napp = Flask(__name__)\napp.run(port=5000)\n',
      'other.py': "import os\nrun(port=os.environ['PORT'])\n",
    };
    assert.equal(portOf(flask), null, 'Kiln starts it on PORT itself');
    assert.equal(portOf(flask, { run_command: 'python3 ./app.py' }), 5000);
    assert.equal(portOf(flask, { run_command: 'python3 other.py' }), null);
    assert.equal(portOf(flask, { run_command: 'gunicorn app:app' }), null);
  });
});

describe('a port that a command fixes', () => {
  for (const [command, port] of [
    ['next start -p 3000', 3000],
    ['exec vite preview --port=4173 --host', 4173],
    ['PORT=3000 node server.js', 3000],
    ['NODE_ENV=production cross-env PORT=3000 node server.js', 3000],
    ['serve -l tcp://0.0.0.0:3000 dist', 3000],
    ['gunicorn -w 2 -b 0.0.0.0:8000 app:app', 8000],
    ['gunicorn --bind=:8000 app:app', 8000],
    ["uvicorn main:app --host '0.0.0.0' --port '8000'", 8000],
    ['cd app && python3 -m http.server 8000', 8000],
    ['uvicorn main:app --port $PORT', null],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: for a shell
    ['PORT=${PORT:-3000} node server.js', null],
    ['redis-server --port 6379 & node server.js', null],
    ['api --port 4000 & web --port 3000', null],
    ['proxy --port 3000 --listen 4000', null],
    ['server --db-port 5432 --port 5432', null],
    ['node --max-old-space-size=4096 server.js', null],
    ['node server.js', null],
  ] as const)
    it(command, () => assert.equal(portInCommand(command), port));

  it('is found in a start script and in a Procfile', () => {
    const follows = 'app.listen(process.env.PORT)';
    assert.equal(portOf(node(follows, 'PORT=3000 node index.js')), 3000);
    assert.equal(portOf(node(follows, 'node index.js', { Procfile: 'web: PORT=3000 node index.js' })), 3000);
    assert.equal(portOf(node(follows, 'node index.js', { Procfile: 'web: node index.js' })), null);
  });
});

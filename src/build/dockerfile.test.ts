// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Dockerfiles
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openApp } from './detect/app.ts';
import { type DockerfileFacts, readDockerfile } from './dockerfile.ts';
import { instructionsOf, stagesOf } from './dockerfile-syntax.ts';
import { memoryFiles } from './files.ts';

const factsOf = (...lines: string[]): DockerfileFacts =>
  readDockerfile(openApp(memoryFiles({ Dockerfile: lines.join('\n') }), '.'), '.')!;
const health = (command: string, ...more: string[]) =>
  factsOf('FROM node:24', ...more, `HEALTHCHECK ${command}`);

test('EXPOSE gives the port, HEALTHCHECK the path and the time to start', () => {
  const facts = factsOf(
    'FROM node:24-slim',
    'USER node',
    'EXPOSE 3000',
    'HEALTHCHECK --interval=5s --start-period=1m30s CMD curl -f http://localhost:3000/healthz || exit 1',
    'CMD ["node", "server.js"]',
  );
  assert.deepEqual(
    [facts.port, facts.health_check_path, facts.startup_timeout_ms, facts.warnings],
    [3000, '/healthz', 90_000, []],
  );
  assert.deepEqual(
    facts.evidence.map(({ line, found }) => `${line} ${found}`),
    [
      '1 Dockerfile, FROM node:24-slim',
      '3 EXPOSE 3000',
      '4 HEALTHCHECK asks for /healthz',
      '5 CMD ["node", "server.js"]',
      '2 USER node',
    ],
  );
});

test('the request of a HEALTHCHECK, in the ways people write it', () => {
  const paths: [command: string, path: string | null][] = [
    ['CMD curl -f http://localhost:3000/healthz', '/healthz'],
    ['CMD curl --fail localhost:3000/ready?full=1 || exit 1', '/ready?full=1'],
    ['CMD curl -f http://localhost || exit 1', '/'],
    ['CMD ["wget", "-qO-", "http://127.0.0.1:8080/up"]', '/up'],
    ['CMD wget --no-verbose --tries=1 --spider http://[::1]:80/#top || exit 1', '/'],
    [
      `CMD node -e "fetch('http://localhost:3000/api/health').then(r => process.exit(r.ok ? 0 : 1))"`,
      '/api/health',
    ],
    [
      `CMD node -e "require('http').get({ port: 3000, path: '/live' }, r => process.exit(r.statusCode - 200))"`,
      '/live',
    ],
    [`CMD ["node", "-e", "fetch('http://localhost:' + process.env.PORT + '/health')"]`, '/health'],
    [
      `CMD python -c "import urllib.request; urllib.request.urlopen('http://0.0.0.0:8000/health/')"`,
      '/health/',
    ],
    ['CMD test "$(curl -s http://localhost:5000/ping)" = "pong"', '/ping'],
    ['CMD curl -f http://localhost:${PORT:-3000}/v', '/v'],
    ['NONE', null],
    ['CMD pg_isready -h localhost', null],
    ['CMD nc -z localhost 3000', null],
    ['CMD ["/bin/check"]', null],
    ['CMD curl -f http://localhost:3000/$UNKNOWN', null],
  ];
  for (const [command, path] of paths) {
    const { health_check_path, warnings } = health(command);
    assert.equal(health_check_path, path, command);
    assert.equal(warnings.length, path === null && command !== 'NONE' ? 1 : 0, command);
  }
});

test('only the last stage and those it starts from count', () => {
  const facts = factsOf(
    'ARG NODE=24',
    'FROM node:${NODE} AS Base',
    'ENV PORT=4000',
    'EXPOSE $PORT',
    'HEALTHCHECK CMD curl http://localhost:$PORT/base',
    'FROM base AS build',
    'EXPOSE 9999',
    'RUN npm run build',
    'FROM base',
    'COPY --from=build /app /app',
    'USER 1000:1000',
    'ENTRYPOINT ["node"]',
    'CMD ["server.js"]',
  );
  assert.deepEqual([facts.port, facts.health_check_path, facts.warnings], [4000, '/base', []]);
  assert.ok(facts.evidence.some(({ found, line }) => found === 'ENTRYPOINT ["node"]' && line === 12));
  assert.ok(facts.evidence.some(({ found }) => found === 'USER 1000:1000'));
  const first = factsOf('FROM a AS build', 'EXPOSE 1111', 'USER app', 'FROM b', 'EXPOSE 2222/tcp');
  assert.equal(first.port, 2222);
  assert.ok(!first.evidence.some(({ found }) => found.startsWith('USER')));
});

test('which of several ports', () => {
  assert.equal(factsOf('FROM x', 'EXPOSE 53/udp 8080/TCP').port, 8080);
  assert.equal(factsOf('FROM x', 'EXPOSE 9229 3000', 'HEALTHCHECK CMD curl localhost:3000').port, 3000);
  assert.equal(factsOf('FROM x', 'ENV PORT 3000', 'EXPOSE 9229', 'EXPOSE 3000').port, 3000);
  assert.equal(factsOf('FROM x', 'EXPOSE 8000-8010').port, 8000);
  assert.equal(factsOf('FROM x', 'ARG P=5000', 'EXPOSE "${P}"').port, 5000);
  assert.equal(factsOf('FROM x', 'ENV PORT=7000 NODE_ENV=production').port, 7000);
  assert.equal(factsOf('FROM x', 'HEALTHCHECK CMD curl localhost:6000/x').port, 6000);
  assert.equal(factsOf('FROM x').port, null);
  assert.equal(factsOf('FROM x', 'EXPOSE 99999 0').port, null);
  const two = factsOf('FROM nginx', 'EXPOSE 80 443');
  assert.equal(two.port, 80);
  assert.match(two.warnings[0]!, /also exposes 443; 80 is used/);
  assert.match(factsOf('FROM x', 'ARG P', 'EXPOSE $P').warnings[0]!, /Dockerfile:3: EXPOSE \$P has no value/);
});

test('lines that are joined, comments between them, here-documents and the escape directive', () => {
  const text = [
    '# syntax=docker/dockerfile:1',
    '# escape=`',
    'FROM x',
    'RUN <<EOF',
    'EXPOSE 1',
    'FROM nowhere',
    'EOF',
    'RUN cat <<-"END" > a && `',
    '# EXPOSE 2',
    '  true',
    '\tEXPOSE 3',
    '\tEND',
    'expose `',
    '',
    '# the port',
    '  4000',
    'CMD echo \\',
  ].join('\r\n');
  assert.deepEqual(
    instructionsOf(text).map(({ name, args, line }) => [line, name, args.replace(/\s+/g, ' ')]),
    [
      [3, 'FROM', 'x'],
      [4, 'RUN', '<<EOF'],
      [8, 'RUN', 'cat <<-"END" > a && true'],
      [13, 'EXPOSE', '4000'],
      [17, 'CMD', 'echo \\'],
    ],
  );
  assert.equal(stagesOf(text).length, 1);
  assert.equal(factsOf('# about this file', '# escape=`', 'FROM x', 'EXPOSE \\', '5000').port, 5000);
});

test('what BuildKit would refuse, or what would start nothing, is told', () => {
  assert.match(factsOf('RUN true').warnings[0]!, /has no FROM/);
  assert.match(factsOf('ARG V', 'FROM node:$V').warnings[0]!, /ARG without a default/);
  assert.match(
    factsOf('FROM go AS build', 'CMD x', 'FROM scratch', 'COPY --from=build /a /a').warnings[0]!,
    /starts nothing/,
  );
  assert.deepEqual(factsOf('FROM scratch', 'ENTRYPOINT ["/a"]').warnings, []);
});

test('hostile ones cost no more than reading them', () => {
  const size = 1024 * 1024;
  for (const piece of [
    'FROM a AS b\n',
    'RUN <<A\n',
    'ENV A=$A$A$A$A\n',
    'ENV B=${A:-xyz}$B A=$B$B$B\n',
    'EXPOSE 1 \\\n',
    '\\',
    'ARG "',
    '${A:-',
    'FROM a AS a\nFROM a\nENV A=1\n',
    'HEALTHCHECK CMD curl localhost:$',
    "'",
    '\0',
  ]) {
    const before = process.cpuUsage();
    factsOf('FROM x', piece.repeat(size / piece.length));
    factsOf('FROM x', `HEALTHCHECK CMD curl ${piece.repeat(size / piece.length)}`);
    // Of the processor's time: others use the machine too.
    const { user, system } = process.cpuUsage(before);
    const took_ms = (user + system) / 1000;
    assert.ok(took_ms < 500, `${JSON.stringify(piece)} took ${took_ms} ms`);
  }
});

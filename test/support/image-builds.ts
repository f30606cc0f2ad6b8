/** What every builder of Dockerfiles must do, run against Docker and against buildctl. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { it } from 'node:test';
import { processesWith, until } from '../../src/isolation/contract/harness.ts';
import { explainImageBuild } from '../../src/isolation/dockerfile/explain.ts';
import type { ImageBuilder, ImageBuildSpec } from '../../src/isolation/image-builder.ts';

const MIB = 1024 * 1024;
const SECRET = 'hush-4711-secret';

/** Multi-stage, cache mount, secret mount, and all that Kiln honours of an image's config. */
const PROOF = (base: string) => `FROM ${base} AS build
ARG GREETING
ARG ODD
WORKDIR /src
COPY app.js .
RUN --mount=type=cache,target=/cache echo run >> /cache/runs && wc -l < /cache/runs && echo cached-runs
RUN --mount=type=secret,id=TOKEN test "$(wc -c < /run/secrets/TOKEN)" = ${SECRET.length} && echo "greeting=$GREETING odd=$ODD" > built.txt
FROM ${base}
COPY --from=build /src /app
EXPOSE 8080
USER 1000:1000
HEALTHCHECK --interval=7s CMD ["/usr/local/bin/node", "-e", "0"]
CMD ["/usr/local/bin/node", "/app/app.js"]
`;

export interface BuildBench {
  builder: ImageBuilder;
  dir: string;
  work_dir: string;
  base: string;
}

let count = 0;
export async function buildImage(bench: BuildBench, dockerfile: string, o: Partial<ImageBuildSpec> = {}) {
  const id = `mch_b${process.pid}x${count++}`;
  const context_dir = path.join(bench.dir, id);
  await mkdir(context_dir, { recursive: true });
  await writeFile(path.join(context_dir, 'Dockerfile'), dockerfile);
  await writeFile(path.join(context_dir, 'app.js'), 'console.log("hi")\n');
  await writeFile(path.join(context_dir, 'ignored.txt'), 'x');
  await writeFile(path.join(context_dir, '.dockerignore'), 'ignored.txt\n');
  let log = '';
  const out_file = path.join(bench.dir, `${id}.tar`);
  const result = await bench.builder.build({
    ...{ id, deployment_id: 'dep_1', context_dir, dockerfile: 'Dockerfile', target: null, build_args: {} },
    ...{
      secrets: {},
      source_date_epoch: 1_700_000_000,
      network: { mode: 'none', allow: [] },
      cache_key: null,
    },
    limits: {
      ...{ time_ms: 90_000, memory_bytes: 512 * MIB, processes: 200, disk_bytes: 1024 * MIB, log_bytes: MIB },
      on_log_limit: 'kill',
    },
    ...{ out_file, signal: new AbortController().signal },
    on_output: (_, chunk) => {
      log += chunk.toString('utf8');
    },
    ...o,
  });
  return { ...result, log, out_file, context_dir };
}

/** Everything in an image archive, unpacked: config, and all layers' bytes in one text. */
export async function readArchive(file: string) {
  const dir = `${file}.d`;
  await mkdir(dir);
  execFileSync('tar', ['-xf', file, '-C', dir]);
  const json = (name: string) =>
    JSON.parse(execFileSync('cat', [path.join(dir, name)], { encoding: 'utf8' }));
  const blob = (digest: string) => `blobs/${digest.replace(':', '/')}`;
  let config_file: string;
  let layers: string[];
  if (existsSync(path.join(dir, 'manifest.json'))) {
    const [entry] = json('manifest.json') as [{ Config: string; Layers: string[] }];
    config_file = entry.Config;
    layers = entry.Layers;
  } else {
    const index = json('index.json') as { manifests: { digest: string }[] };
    const manifest = json(blob(index.manifests[0]!.digest));
    config_file = blob(manifest.config.digest);
    layers = manifest.layers.map((layer: { digest: string }) => blob(layer.digest));
  }
  const listing = layers.flatMap((layer) => {
    const shown = execFileSync('tar', ['--full-time', '--numeric-owner', '-tvf', path.join(dir, layer)], {
      encoding: 'utf8',
      maxBuffer: 64 * MIB,
    });
    return shown.split('\n').filter(Boolean);
  });
  const has = (text: string) =>
    layers.some((layer) => {
      const script =
        'f=$1; case $(head -c2 "$f" | od -An -tx1) in *"1f 8b"*) zcat "$f";; *) cat "$f";; esac | grep -aqF -- "$2"';
      try {
        execFileSync('sh', ['-c', script, 'sh', path.join(dir, layer), text]);
        return true;
      } catch {
        return false;
      }
    });
  const config = json(config_file);
  return { config, listing, has };
}

export function imageBuildCases(open: () => BuildBench): void {
  const build = (dockerfile: string, o?: Partial<ImageBuildSpec>) => buildImage(open(), dockerfile, o);

  it('proves that it works by building and running a step', async () => {
    const test = await open().builder.selfTest();
    assert.ok(test.ok, JSON.stringify(test));
  });

  it('multi-stage, cache and secret mounts, EXPOSE, CMD, HEALTHCHECK, USER; the secret is nowhere', async () => {
    const o = {
      build_args: { GREETING: 'hello', ODD: 'a "b" $(c) `d`' },
      secrets: { TOKEN: SECRET },
      cache_key: 'proof',
    };
    const one = await build(PROOF(open().base), o);
    assert.ok(one.archive !== null, one.log);
    const { config, listing, has } = await readArchive(one.out_file);
    assert.deepEqual(config.config.ExposedPorts, { '8080/tcp': {} });
    assert.equal(config.config.User, '1000:1000');
    assert.deepEqual(config.config.Cmd, ['/usr/local/bin/node', '/app/app.js']);
    assert.equal(config.config.Healthcheck.Interval, 7e9);
    assert.ok(listing.some((line) => line.endsWith('app/built.txt')));
    assert.ok(has('greeting=hello odd=a "b" $(c) `d`'), 'the layers can be searched');
    assert.ok(
      !has(SECRET) && !JSON.stringify(config).includes('hush-4711') && !one.log.includes(`\n${SECRET}`),
    );
    assert.deepEqual(await readdir(open().work_dir), [], 'no secret is left on the disk');
    assert.match(one.log, /^#\d+ \[build \d\/\d\] RUN --mount=type=cache/m);
    // The same key sees the cache mount of the first build and reuses steps; another one sees neither.
    const edited = `${PROOF(open().base).replace('&& echo cached-runs', '&& echo cached-again')}`;
    const again = await build(edited, o);
    assert.match(again.log, /^#\d+ [\d.]+ 2$/m, again.log);
    const other = await build(edited, { ...o, cache_key: 'another' });
    assert.match(other.log, /^#\d+ [\d.]+ 1$/m, other.log);
  });

  it('built twice without a cache, only timestamps differ', async () => {
    const o = { secrets: { TOKEN: SECRET } };
    const plain = (one: string[]) =>
      one.map((line) => line.replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?/, '')).sort();
    const [a, b] = [await build(PROOF(open().base), o), await build(PROOF(open().base), o)];
    const [first, second] = [await readArchive(a.out_file), await readArchive(b.out_file)];
    assert.deepEqual(plain(first.listing), plain(second.listing));
    const timeless = (config: object) =>
      JSON.stringify(config, (key, value) => (/created$|diff_ids/.test(key) ? null : value));
    assert.equal(timeless(first.config), timeless(second.config));
  });

  it('takes a stage, and leaves out what .dockerignore names', async () => {
    const { base } = open();
    const text = `FROM ${base} AS small\nCOPY . /all\nFROM ${base}\nRUN exit 9\n`;
    const { archive, out_file, log } = await build(text, { target: 'small' });
    assert.ok(archive !== null, log);
    const { listing } = await readArchive(out_file);
    assert.ok(listing.some((line) => line.endsWith('all/app.js')));
    assert.ok(!listing.some((line) => line.includes('ignored.txt')));
  });

  const explains: [string, (base: string) => string, string, RegExp][] = [
    [
      'a step that fails',
      (base) => `FROM ${base}\nRUN echo before && exit 3\n`,
      'STEP_FAILED',
      /RUN echo before .*exit code 3/,
    ],
    [
      'a base image that is not there',
      (base) => `FROM ${base.replace(/:\w+$/, ':nosuch')}\n`,
      'BASE_IMAGE_MISSING',
      /:nosuch does not exist/,
    ],
    [
      'a registry out of reach',
      () => 'FROM localhost:1/x:1\n',
      'REGISTRY_UNREACHABLE',
      /localhost:1\/x:1 could not be reached: connection refused/,
    ],
    ['a syntax error', (base) => `FROM ${base}\n\nRUNN x\n`, 'DOCKERFILE_INVALID', /line 3/],
    [
      'a file that is not in the context',
      (base) => `FROM ${base}\nCOPY ignored.txt /\n`,
      'COPY_SOURCE_MISSING',
      /ignored.txt/,
    ],
    [
      'a secret that was not given',
      (base) => `FROM ${base}\nRUN --mount=type=secret,id=TOKEN,required true\n`,
      'SECRET_MISSING',
      /secret TOKEN/,
    ],
    [
      'a secret file that is not there',
      (base) => `FROM ${base}\nRUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN\n`,
      'SECRET_MISSING',
      /secret TOKEN/,
    ],
  ];
  for (const [name, text, code, message] of explains)
    it(`explains ${name}`, async () => {
      const { archive, exit, log } = await build(text(open().base));
      assert.equal(archive, null);
      assert.deepEqual([exit.reason, exit.exit_code !== 0], ['exited', true]);
      const found = explainImageBuild(log);
      assert.equal(found.code, code, `${JSON.stringify(found)}\n${log}`);
      assert.match(found.message, message);
    });

  it('is cancelled within 5 s, with everything it started', async () => {
    const mark = `9${process.pid}.25`;
    const cancel = new AbortController();
    const running = build(`FROM ${open().base}\nRUN (sleep ${mark} &) ; sleep ${mark}\n`, {
      signal: cancel.signal,
    });
    await until('the step runs', () => processesWith(`sleep\0${mark}`).length === 2);
    const started = performance.now();
    cancel.abort();
    const { exit, archive } = await running;
    assert.ok(performance.now() - started < 5000, `${performance.now() - started} ms`);
    assert.deepEqual([exit.reason, archive], ['killed', null]);
    await until('nothing is left', () => processesWith(`sleep\0${mark}`).length === 0);
  });

  it('holds limits: time, log, memory, processes, size of the image', async () => {
    const { base } = open();
    const limits = (o: object) => ({
      limits: {
        time_ms: 60_000,
        memory_bytes: 512 * MIB,
        processes: 200,
        disk_bytes: 1024 * MIB,
        log_bytes: MIB,
        on_log_limit: 'kill' as const,
        ...o,
      },
    });
    const reason = async (run: string, o: object) =>
      (await build(`FROM ${base}\nRUN ${run}\n`, limits(o))).exit.reason;
    assert.equal(await reason('sleep 60', { time_ms: 3000 }), 'timed_out');
    assert.equal(await reason('yes', { log_bytes: 20_000 }), 'log_limit');
    const eat = `node -e "const a=[];setInterval(()=>a.push(Buffer.alloc(8e6,1)),10)"`;
    assert.equal(await reason(eat, { memory_bytes: 200 * MIB }), 'out_of_memory');
    const fork = 'i=0; while [ $i -lt 80 ]; do sleep 30 & i=$((i+1)); done; wait';
    assert.equal(await reason(fork, { processes: 40 }), 'too_many_processes');
    assert.equal(await reason('true', { disk_bytes: 10 * MIB }), 'out_of_disk');
  });

  it('leaves nothing, and prunes its cache', async () => {
    assert.deepEqual(await readdir(open().work_dir), []);
    await open().builder.prune(0);
  });
}

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { explainImageBuild } from './explain.ts';

/** Logs as the two BuildKits print them: inside Docker 20.10, and of 2025 behind buildctl or buildx. */
const CASES: [name: string, log: string, code: string, message: RegExp][] = [
  [
    'a full disk inside a step',
    '#7 [a 4/4] RUN npm ci\n#7 sha256:1c87\n#7 0.172 npm ERR! no space left on device, nearly\n#7 ERROR: executor failed running [/bin/sh -c npm ci]: exit code: 3\n------\n > [a 4/4] RUN npm ci:\n------\nexecutor failed running [/bin/sh -c npm ci]: exit code: 3',
    'DISK_FULL',
    /The disk was full in step \[a 4\/4\] RUN npm ci/,
  ],
  [
    'a step that failed (2025)',
    '#6 [build 2/3] RUN make\n#6 1.5 make: *** No rule\n#6 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2\n------\n > [build 2/3] RUN make:\n1.5 make: *** No rule\n------\nDockerfile:3\n--------------------\n   3 | >>> RUN make\n--------------------\nerror: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2',
    'STEP_FAILED',
    /^Step \[build 2\/3\] RUN make failed with exit code 2\.$/,
  ],
  [
    'a step that was killed',
    '#6 [2/2] RUN big\n#6 ERROR: process "/bin/sh -c big" did not complete successfully: exit code: 137',
    'STEP_FAILED',
    /memory ran out/,
  ],
  [
    'a step cancelled by another is not the cause',
    '#5 [a 2/2] RUN false\n#6 [b 2/2] RUN sleep 9\n#5 ERROR: executor failed running [/bin/sh -c false]: exit code: 1\n#6 ERROR: context canceled\n',
    'STEP_FAILED',
    /\[a 2\/2\] RUN false/,
  ],
  [
    'what a step prints is never taken for BuildKit’s words',
    '#6 [2/2] RUN test\n#6 0.1 dockerfile parse error line 3: unknown instruction: X\n#6 0.2 pull access denied\n#6 ERROR: executor failed running [/bin/sh -c test]: exit code: 1',
    'STEP_FAILED',
    /exit code 1/,
  ],
  [
    'a syntax error (2020)',
    'failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 3: unknown instruction: RUNN',
    'DOCKERFILE_INVALID',
    /in line 3: unknown instruction: RUNN/,
  ],
  [
    'a syntax error (2025)',
    'Dockerfile:3\n   3 | >>> RUNN x\nerror: failed to solve: dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)',
    'DOCKERFILE_INVALID',
    /in line 3/,
  ],
  [
    'a missing file to copy (2020)',
    '#6 [2/2] COPY nope /\n#6 ERROR: "/nope" not found: not found\n------\n > [2/2] COPY nope /:\n------\nfailed to solve with frontend dockerfile.v0: failed to build LLB: failed to compute cache key: "/nope" not found: not found',
    'COPY_SOURCE_MISSING',
    /^\/nope is not in the build context/,
  ],
  [
    'a missing file to copy (2025)',
    '#5 [2/2] COPY nope /\n#5 ERROR: failed to calculate checksum of ref abc::def: "/nope": not found\nerror: failed to solve: failed to compute cache key: failed to calculate checksum of ref abc::def: "/nope": not found',
    'COPY_SOURCE_MISSING',
    /\/nope/,
  ],
  [
    'no such base image',
    '#3 [internal] load metadata for localhost:5000/nosuch:1\n#3 ERROR: localhost:5000/nosuch:1: not found\n------\n > [internal] load metadata for localhost:5000/nosuch:1:\n------\nfailed to solve with frontend dockerfile.v0: failed to create LLB definition: localhost:5000/nosuch:1: not found',
    'BASE_IMAGE_MISSING',
    /localhost:5000\/nosuch:1 does not exist/,
  ],
  [
    'a base image behind a login',
    '#3 [internal] load metadata for docker.io/acme/x:1\n#3 ERROR: pull access denied, repository does not exist or may require authorization',
    'BASE_IMAGE_MISSING',
    /docker.io\/acme\/x:1 does not exist, or the registry asks for a login/,
  ],
  [
    'a registry out of reach',
    '#3 [internal] load metadata for docker.io/library/node:24\n#3 ERROR: failed to do request: Head "https://registry-1.docker.io/v2/library/node/manifests/24": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host',
    'REGISTRY_UNREACHABLE',
    /of docker.io\/library\/node:24 could not be reached: no such host/,
  ],
  [
    'a secret that was not given (required)',
    '#6 [2/2] RUN --mount=type=secret,id=TOKEN,required true\n#6 ERROR: secret TOKEN: not found\nerror: failed to solve: secret TOKEN: not found',
    'SECRET_MISSING',
    /secret TOKEN/,
  ],
  [
    'a secret that was not given (file)',
    '#6 [2/2] RUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN\n#6 0.1 cat: /run/secrets/TOKEN: No such file or directory\n#6 ERROR: executor failed running [/bin/sh -c cat /run/secrets/TOKEN]: exit code: 1',
    'SECRET_MISSING',
    /secret TOKEN/,
  ],
  [
    'no Dockerfile',
    'error: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory',
    'DOCKERFILE_MISSING',
    /no file Dockerfile/,
  ],
  [
    'no such stage',
    'error: failed to solve: target stage "prod" could not be found',
    'TARGET_MISSING',
    /prod/,
  ],
  ['anything else', 'error: something new', 'BUILD_FAILED', /something new/],
  ['nothing at all', '', 'BUILD_FAILED', /it said nothing/],
];

describe('why a Dockerfile build failed', () => {
  for (const [name, log, code, message] of CASES)
    it(name, () => {
      const found = explainImageBuild(log);
      assert.equal(found.code, code, JSON.stringify(found));
      assert.match(found.message, message);
      assert.ok(found.next_step.length > 10);
    });
});

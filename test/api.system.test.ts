/**
 * What needs Python packages: requests made from the OpenAPI document (schemathesis) and the published Python client,
 * both against a running Kiln. Installed into a folder of their own; without a package index they are skipped by name.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { type Kiln, startKiln } from './support/kiln.ts';

const run = promisify(execFile);
const venv = path.join(os.tmpdir(), 'kiln-system-python');
const python = path.join(venv, 'bin', 'python');

/** Null, or why the packages cannot be had. */
function install(): string | null {
  try {
    execFileSync('python3', ['-m', 'venv', venv], { stdio: 'pipe', timeout: 60_000 });
    execFileSync(python, ['-m', 'pip', 'install', '-q', 'schemathesis==4.32.5', 'miosa==2.19.2'], {
      stdio: 'pipe',
      timeout: 300_000,
    });
    return null;
  } catch (error) {
    return `schemathesis and miosa cannot be installed from PyPI here: ${String(error).slice(0, 200)}`;
  }
}

const missing = install();

/** Commands would be run for real, streams do not end, archives are no JSON, and these look after the whole install. */
const LEFT_OUT = [
  ...['execSandbox', 'streamExec', 'runGc', 'revokeApiKey', 'putArchive'],
  ...['streamEvents', 'streamSandboxEvents', 'streamSandboxLogs', 'watchSandboxFiles'],
];

describe('with Python packages', { skip: missing ?? false }, () => {
  let kiln: Kiln;
  // One each: requests made at random leave webhooks, keys and deployments behind.
  beforeEach(async () => {
    kiln = await startKiln({ 'allow-private-webhooks': 'yes' });
  });
  afterEach(() => kiln.close());

  test('schemathesis finds no 5xx and no answer outside its schema', async () => {
    const args = ['run', `${kiln.api_url}/openapi.json`, '--header', `Authorization: Bearer ${kiln.key}`];
    args.push('--checks', 'not_a_server_error,response_schema_conformance,content_type_conformance');
    args.push('--phases', 'examples,coverage,fuzzing', '--max-examples', '10', '--seed', '1');
    args.push('--request-timeout', '150', '--workers', '2', '--max-time', '120', '--no-color');
    // About its own generator (paths it will not send, like '..'), not about Kiln; it comes and goes with the load.
    args.push('--suppress-health-check', 'filter_too_much');
    for (const id of LEFT_OUT) args.push('--exclude-operation-id', id);
    const ended = await run(path.join(venv, 'bin', 'schemathesis'), args, {
      timeout: 400_000,
      // It leaves a cache where it runs.
      cwd: venv,
      maxBuffer: 64 * 1024 * 1024,
    }).catch((error: { stdout?: string; stderr?: string }) => error);
    assert.ok(!(ended instanceof Error), `${ended.stdout?.slice(-60_000)}\n${ended.stderr?.slice(-2000)}`);
  });

  test('the published Python client publishes, promotes, rolls back', async () => {
    const script = path.join(import.meta.dirname, 'wire', 'official.py');
    const { stdout } = await run(python, [script, kiln.api_url, kiln.key], { timeout: 120_000 });
    assert.match(stdout, /^ok$/m);
  });
});

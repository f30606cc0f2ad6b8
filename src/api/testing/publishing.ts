import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Answered, Json, TestApi } from './api.ts';

export interface Publishing {
  make(body?: object): Promise<Json>;
  publish(id: string, body?: object, headers?: Record<string, string>): Promise<Answered>;
  /** Published and live. */
  live(id: string, body?: object): Promise<Json>;
}

/** The steps that tests of versions have in common. */
export function publishing(api: TestApi, sandbox_id: string): Publishing {
  let count = 0;
  const publish: Publishing['publish'] = (id, body = {}, headers = {}) =>
    api.ask('POST', `/deployments/${id}/publish`, {
      body: { source_sandbox_id: sandbox_id, ...body },
      headers,
    });
  return {
    publish,
    async make(body = {}) {
      const made = await api.ask('POST', '/deployments', { body: { name: `App ${++count}`, ...body } });
      assert.equal(made.status, 201, JSON.stringify(made.body));
      return made.body.data;
    },
    async live(id, body = {}) {
      const answer = await publish(id, body);
      assert.equal(answer.status, 202, JSON.stringify(answer.body));
      await api.engine.finish(answer.body.data.version_id);
      return answer.body.data;
    },
  };
}

/** A log file as store/logs writes it. */
export async function logLines(file: string, lines: string[]): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const at = new Date().toISOString();
  await writeFile(file, lines.map((l) => `${JSON.stringify({ t: at, s: 'stdout', l })}\n`).join(''));
}

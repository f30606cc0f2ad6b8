import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeApi, run } from '../fixture.ts';

let api: FakeApi;
let dir: string;
let env: Record<string, string>;
beforeEach(async () => {
  api = new FakeApi();
  dir = mkdtempSync(path.join(os.tmpdir(), 'kiln-cli-'));
  env = { KILN_API: await api.listen(), KILN_KEY: 'msk_test' };
  api.addDeployment('shop');
  api.addVersion('dep_shop', 1, { release_id: 'rel_1' });
});
afterEach(async () => {
  await api.close();
  rmSync(dir, { recursive: true, force: true });
});

const exportTo = (file: string) => run(['image', 'export', 'ver_shop1', file], { env, cwd: dir });
function answering(whole: boolean): void {
  api.intercept = ({ path: asked }, response) => {
    if (asked !== '/releases/rel_1/image') return false;
    response.writeHead(200, { 'content-type': 'application/x-tar' });
    response.write('half', () => (whole ? response.end(' and half') : response.destroy()));
    return true;
  };
}

test('export writes the file whole, beside what else is there', async () => {
  writeFileSync(path.join(dir, 'shop.tar.part'), 'somebody else’s');
  answering(true);
  const { code, stderr } = await exportTo('shop.tar');
  assert.equal(code, 0, stderr);
  assert.equal(readFileSync(path.join(dir, 'shop.tar'), 'utf8'), 'half and half');
  assert.equal(readFileSync(path.join(dir, 'shop.tar.part'), 'utf8'), 'somebody else’s');
  assert.deepEqual(readdirSync(dir).sort(), ['shop.tar', 'shop.tar.part']);
});

test('an export that breaks off leaves what was there, and says that the engine went away', async () => {
  writeFileSync(path.join(dir, 'shop.tar'), 'before');
  answering(false);
  const { code, stderr } = await exportTo('shop.tar');
  assert.equal(code, 6);
  assert.match(stderr, /went away/);
  assert.doesNotMatch(stderr, /fault of Kiln/);
  assert.equal(readFileSync(path.join(dir, 'shop.tar'), 'utf8'), 'before');
  assert.deepEqual(readdirSync(dir), ['shop.tar']);
});

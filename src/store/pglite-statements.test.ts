import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { PGlite } from '@electric-sql/pglite';
import { withPreparedStatements } from './pglite-statements.ts';

let pglite: PGlite;
let prepared: ReturnType<typeof withPreparedStatements>;

before(async () => {
  pglite = await PGlite.create('memory://');
  prepared = withPreparedStatements(pglite);
  await pglite.exec(`
    create table things (id int primary key, name text not null, data jsonb, raw bytea, at timestamptz, big int8, list text[]);
    create table other (id int references things (id));`);
});
after(() => pglite.close());

const kept = async () => {
  const text = 'select name, statement from pg_prepared_statements';
  return (await pglite.query<{ name: string; statement: string }>(text)).rows;
};

test('answers are those of PGlite itself, for every kind of value', async () => {
  const insert = 'insert into things values ($1, $2, $3, $4, $5, $6, $7) returning *';
  const at = new Date('2026-11-26T05:00:00.123Z');
  const values = [
    ['plain', { a: [1, 'ü'] }, new Uint8Array([0, 1, 255]), at, 2 ** 40, ['a', 'b,"c"']],
    ['', null, null, null, null, null],
    ["O'Brien; drop table things -- 😀", [], new Uint8Array(), at, -1, []],
    ['json as text', '{"b":2}', undefined, at.toISOString(), 2n ** 60n, null],
  ];
  for (const [n, row] of values.entries()) {
    const plain = await pglite.query(insert, [2 * n, ...row]);
    const ours = await prepared.query(insert, [2 * n + 1, ...row]);
    const { rows, ...rest } = plain;
    assert.deepEqual(
      [ours.rows, ours.affectedRows, ours.fields],
      [rows.map((of) => ({ ...(of as object), id: 2 * n + 1 })), rest.affectedRows, rest.fields],
    );
  }
  for (const [text, params] of [
    ['select * from things where name = any($1) order by id', [['plain', '']]],
    ['select count(*)::int8 as n, null as nothing from things where id > $1', [100]],
    ['update things set name = $2 where id = $1', [-5, 'none']],
    ['select pg_notify($1, $2)', ['somewhere', 'x']],
    ['set application_name = kiln', []],
  ] as const) {
    const { rows, affectedRows, fields } = await pglite.query(text, [...params]);
    for (const use of ['first', 'second']) {
      const ours = await prepared.query(text, [...params]);
      assert.deepEqual(
        [ours.rows, ours.affectedRows, ours.fields],
        [rows, affectedRows, fields],
        `${use}: ${text}`,
      );
    }
  }
});

test('an error is that of the database, and the next statement is well', async () => {
  const wrong: [string, unknown[], string][] = [
    ['insert into things (id, name) values ($1, $2)', [0, 'twice'], '23505'],
    ['insert into other values ($1)', [12345], '23503'],
    ['select nothing from things', [], '42703'],
    ['select 1 / $1::int', [0], '22012'],
    ['selec', [], '42601'],
    ['select $1::int', ['abc'], '22P02'],
  ];
  for (const [text, params, code] of [...wrong, ...wrong]) {
    await assert.rejects(prepared.query(text, params), { code });
    assert.deepEqual((await prepared.query('select $1::int as n', [7])).rows, [{ n: 7 }]);
  }
});

test('a transaction is kept together, and undone as a whole; what was prepared in it stays', async () => {
  const text = 'insert into things (id, name) values ($1, $2) returning name';
  const boom = new Error('boom');
  const undone = prepared.transaction(async (trx) => {
    await trx.query(text, [500, 'undone']);
    throw boom;
  });
  // Comes in between, and waits.
  const beside = prepared.query<{ n: number }>('select count(*)::int as n from things where id = $1', [500]);
  await assert.rejects(undone, boom);
  assert.equal((await beside).rows[0]?.n, 0);
  await assert.rejects(
    prepared.transaction(async (trx) => {
      await trx.query('select 1 / $1::int as n', [0]).catch(() => {});
      await trx.query(text, [501, 'in a failed transaction']);
    }),
    { code: '25P02' },
  );
  await prepared.transaction(async (trx) => {
    assert.deepEqual((await trx.query(text, [502, 'done'])).rows, [{ name: 'done' }]);
  });
  assert.equal((await prepared.query('select 1 from things where id in (500, 501, 502)')).rows.length, 1);
});

test('notifications arrive', async () => {
  const heard: string[] = [];
  const stop = await pglite.listen('here', (payload) => heard.push(payload));
  await prepared.query('select pg_notify($1, $2)', ['here', 'one']);
  await prepared.transaction(async (trx) => {
    await trx.query('select pg_notify($1, $2)', ['here', 'two']);
    assert.deepEqual(heard, ['one']);
  });
  await new Promise(setImmediate);
  assert.deepEqual(heard, ['one', 'two']);
  await stop();
});

test('a statement whose table has changed fails at most once', async () => {
  await pglite.exec('create table shifting (id int); insert into shifting values (1)');
  const read = () => prepared.query('select * from shifting');
  assert.deepEqual((await read()).rows, [{ id: 1 }]);
  await pglite.exec(`alter table shifting add column more text default 'new'`);
  await read().catch((error) => assert.equal(error.code, '0A000'));
  assert.deepEqual((await read()).rows, [{ id: 1, more: 'new' }]);
});

test('there are never more than a few hundred, and an old one is planned anew', async () => {
  for (let n = 0; n < 1_200; n++) await prepared.query(`select ${n} as n`);
  assert.ok((await kept()).length <= 500, `${(await kept()).length} are kept`);
  assert.deepEqual((await prepared.query('select 0 as n')).rows, [{ n: 0 }]);
  const text = 'select $1::int as n';
  const name = async () => (await kept()).find(({ statement }) => statement === text)?.name;
  await prepared.query(text, [0]);
  const first = await name();
  assert.ok(first);
  for (let n = 0; n < 1_000; n++) assert.deepEqual((await prepared.query(text, [n])).rows, [{ n }]);
  assert.notEqual(await name(), first);
  assert.ok((await kept()).length <= 500);
});

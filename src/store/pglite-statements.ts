/**
 * Prepared statements for PGlite. Its own `query` parses, describes and plans a statement each time, in six trips into
 * the WebAssembly module; most of the engine's statements are small, and these are the larger part of what they cost.
 * Here a statement is prepared when it is first used, and then sent in one trip (Bind, Execute, Sync).
 */
import { type PGlite, parse, protocol } from '@electric-sql/pglite';
import type { PGliteDialectConfig } from 'kysely';

/** What Kysely needs of a PGlite. */
type KyselyPglite = Exclude<PGliteDialectConfig['pglite'], (...args: never[]) => unknown>;

/** The engine has about 300 different ones; lists of values make more. The one that was not used for longest goes. */
const MAX_STATEMENTS = 500;
/**
 * Planned anew after so many uses: a plan made for a table of ten rows must not be kept when it has become one of a
 * million (nothing analyses tables here, which would end old plans).
 */
const MAX_USES = 500;

interface Statement {
  name: string;
  parameter_types: number[];
  /** RowDescription; null when it answers no rows. */
  description: Message | null;
  uses: number;
}

type Message = Parameters<typeof parse.parseResults>[0][number];
type Answer = Awaited<ReturnType<KyselyPglite['query']>>;

export function withPreparedStatements(pglite: PGlite): KyselyPglite {
  const statements = new Statements(pglite);
  const run = <T>(text: string, values?: unknown[]) =>
    // The lock that PGlite's own queries take, whoever makes them.
    pglite.runExclusive(() => statements.run(text, values ?? [])) as Promise<
      Awaited<ReturnType<typeof pglite.query<T>>>
    >;
  return {
    get closed() {
      return pglite.closed;
    },
    get ready() {
      return pglite.ready;
    },
    get waitReady() {
      return pglite.waitReady;
    },
    close: () => pglite.close(),
    // Waits for transactions, as its own `query` does; there is no public name for that lock.
    query: <T>(text: string, values?: unknown[]) =>
      pglite._runExclusiveTransaction(() => run<T>(text, values)),
    transaction: (callback) =>
      pglite.transaction((trx) => callback({ query: run, rollback: () => trx.rollback() })),
  };
}

class Statements {
  readonly #pglite: PGlite;
  readonly #known = new Map<string, Statement>();
  #next = 1;

  constructor(pglite: PGlite) {
    this.#pglite = pglite;
  }

  async run(text: string, values: unknown[]): Promise<Answer> {
    const statement = await this.#prepared(text);
    try {
      const messages = await this.#send(
        protocol.serialize.bind({ statement: statement.name, values: this.#encode(statement, values) }),
        protocol.serialize.execute(),
      );
      const described = statement.description ? [statement.description, ...messages] : messages;
      return parse.parseResults(described, this.#pglite.parsers)[0] as Answer;
    } catch (error) {
      // Whatever it was (a changed table among others), the next use begins afresh.
      statement.uses = MAX_USES;
      throw error;
    }
  }

  async #prepared(text: string): Promise<Statement> {
    const known = this.#known.get(text);
    if (known) {
      this.#known.delete(text); // and to the end
      if (known.uses++ < MAX_USES) {
        this.#known.set(text, known);
        return known;
      }
    }
    const name = `kiln_${this.#next++}`;
    const { parse, describe } = protocol.serialize;
    const answers = await this.#send(
      ...this.#close(known),
      parse({ name, text }),
      describe({ type: 'S', name }),
    );
    const statement = { name, ...readDescription(answers), uses: 1 };
    this.#known.set(text, statement);
    return statement;
  }

  /** Makes room for one more. */
  #close(replaced: Statement | undefined): Uint8Array[] {
    const closed = replaced ? [replaced] : [];
    if (this.#known.size >= MAX_STATEMENTS) {
      const [oldest, statement] = this.#known.entries().next().value!;
      this.#known.delete(oldest);
      closed.push(statement);
    }
    return closed.map(({ name }) => protocol.serialize.close({ type: 'S', name }));
  }

  #encode({ parameter_types }: Statement, values: unknown[]): (string | null)[] {
    const { serializers } = this.#pglite;
    return values.map((value, n) => {
      if (value === null || value === undefined) return null;
      return serializers[parameter_types[n]!]?.(value) ?? String(value);
    });
  }

  /** @throws DatabaseError, after the whole of it was read: what follows an error is skipped up to the Sync. */
  async #send(...parts: Uint8Array[]): Promise<Message[]> {
    const message = Buffer.concat([...parts, protocol.serialize.sync()]);
    return (await this.#pglite.execProtocol(message)).messages;
  }
}

function readDescription(answers: Message[]): Pick<Statement, 'parameter_types' | 'description'> {
  return {
    parameter_types: parse.parseDescribeStatementResults(answers),
    description: answers.find((answer) => answer.name === 'rowDescription') ?? null,
  };
}

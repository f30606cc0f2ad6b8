import { pipeline, type Readable, Transform } from 'node:stream';
import { KilnError } from '../../domain/errors.ts';
import type { ObjectStore } from './port.ts';

export type FaultyOperation = 'put' | 'putFile' | 'head' | 'get' | 'delete' | 'list';

/**
 * What goes wrong:
 *   fail         the operation does nothing and fails
 *   no_space     the same, as a full disk says it (`put` has taken half of the body by then)
 *   lost_answer  the operation is done, but the caller is told that it failed
 *   short_read   `get` answers a body that breaks off in the middle with an error
 *   truncated    `get` answers a body that ends early as if it were whole
 */
export type FaultKind = 'fail' | 'no_space' | 'lost_answer' | 'short_read' | 'truncated';

export interface Fault {
  operation: FaultyOperation;
  /** Which call of that operation, from 1; 'every' for all of them. */
  nth: number | 'every';
  kind: FaultKind;
}

/** A store that fails as planned; `plan` may be changed at any time, calls are counted from the start. */
export function faultyObjectStore(
  inner: ObjectStore,
  plan: Fault[],
): ObjectStore & { calls: Record<FaultyOperation, number> } {
  const calls = { put: 0, putFile: 0, head: 0, get: 0, delete: 0, list: 0 };
  const next = (operation: FaultyOperation): FaultKind | null => {
    calls[operation]++;
    const armed = plan.find(
      (f) => f.operation === operation && (f.nth === 'every' || f.nth === calls[operation]),
    );
    return armed?.kind ?? null;
  };
  const around = async <T>(operation: FaultyOperation, action: () => Promise<T>): Promise<T> => {
    const fault = next(operation);
    if (fault === 'fail' || fault === 'no_space') throw failed(operation, fault);
    const answer = await action();
    if (fault === 'lost_answer') throw failed(operation, fault);
    return answer;
  };
  return {
    calls,
    async put(key, body) {
      const fault = next('put');
      if (fault === 'fail') throw failed('put', fault);
      const answer = await inner.put(key, fault === 'no_space' ? breakingOff(body) : body);
      if (fault) throw failed('put', fault);
      return answer;
    },
    putFile: (key, path) => around('putFile', () => inner.putFile(key, path)),
    head: (key) => around('head', () => inner.head(key)),
    delete: (key) => around('delete', () => inner.delete(key)),
    async get(key, range) {
      const fault = next('get');
      if (fault === 'fail' || fault === 'no_space' || fault === 'lost_answer') throw failed('get', fault);
      const body = await inner.get(key, range);
      return fault ? cut(body, fault) : body;
    },
    async *list(prefix) {
      const fault = next('list');
      if (fault) throw failed('list', fault);
      yield* inner.list(prefix);
    },
    // With faults armed for reading, nobody may read around them.
    localPath: (key) => (plan.some((f) => f.operation === 'get') ? null : inner.localPath(key)),
  };
}

function failed(operation: FaultyOperation, fault: FaultKind): KilnError {
  const why = fault === 'no_space' ? 'ENOSPC, no space left on the device' : 'injected fault';
  return new KilnError('STORAGE_FAILED', `The object store failed in ${operation} (${why}). Try again.`);
}

async function* breakingOff(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of body) {
    yield piece.subarray(0, piece.length >> 1);
    break;
  }
  throw failed('put', 'no_space');
}

/** Half of the first piece, then an end or an error. */
function cut(body: Readable, fault: FaultKind): Readable {
  let seen = false;
  const half = new Transform({
    transform(piece: Buffer, _encoding, done) {
      const first = !seen;
      seen = true;
      if (first) this.push(piece.subarray(0, piece.length >> 1));
      done(fault === 'short_read' ? failed('get', fault) : null);
    },
    flush(done) {
      done(fault === 'short_read' && !seen ? failed('get', fault) : null);
    },
  });
  pipeline(body, half, () => {}); // its errors are those of the output
  return half;
}

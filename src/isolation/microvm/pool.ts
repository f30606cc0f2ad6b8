import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { endVm, type VmHost } from './vm-host.ts';
import { bootWarmVm, endWarmVm, type WarmShape, type WarmVm } from './warm-vm.ts';

export interface WarmOptions {
  /** How many wait at a time. */
  size: number;
  shape: WarmShape;
}

export interface WarmPool {
  /** One that waits, or null. The taker ends it: none is used twice. */
  take(): WarmVm | null;
  /** Only for one that was given nothing. */
  giveBack(vm: WarmVm): void;
  /** Boots others in the place of those that were taken. */
  fill(): void;
  /** How many could be taken at once. */
  waiting(): number;
  /** Ends those that wait or boot; nothing of them is left. */
  close(): Promise<void>;
}

/** A host where VMs do not boot must not be kept busy with trying. */
const MAX_FAILURES = 3;
const CLOSE_POLL_MS = 100;

/**
 * Keeps VMs booted. They hold nothing of anybody: no source, no cache, no secret, no network until they are taken.
 * `ids` are those the sweep must leave alone.
 */
export function openWarmPool(o: {
  host: VmHost;
  warm: WarmOptions;
  root: () => Promise<string[]>;
  vcpus: number;
  ids: Set<string>;
}): WarmPool {
  const ready: WarmVm[] = [];
  const booting = new Map<string, Promise<void>>();
  const dead = new WeakSet<WarmVm>();
  let failures = 0;
  let closed = false;

  const end = async (vm: WarmVm) => {
    await endWarmVm(o.host, vm);
    o.ids.delete(vm.id);
  };
  const boot = async (id: string) => {
    o.ids.add(id);
    try {
      const vm = await bootWarmVm({ host: o.host, id, shape: o.warm.shape, root: o.root, vcpus: o.vcpus });
      failures = 0;
      if (closed) return await end(vm);
      ready.push(vm);
      void vm.booted.vm.exited.then(() => died(vm));
    } catch {
      // Whoever needs a machine boots one, and is told what is wrong with that.
      o.ids.delete(id);
      failures++;
    }
  };
  const fill = () => {
    while (!closed && failures < MAX_FAILURES && ready.length + booting.size < o.warm.size) {
      const id = `warm_${randomBytes(8).toString('hex')}`;
      const over = boot(id).finally(() => {
        booting.delete(id);
        fill();
      });
      booting.set(id, over);
    }
  };
  const died = async (vm: WarmVm) => {
    dead.add(vm);
    const at = ready.indexOf(vm);
    if (at < 0) return;
    ready.splice(at, 1);
    failures++;
    await end(vm);
    fill();
  };

  fill();
  return {
    take() {
      // A failure of long ago is no reason to stay without.
      failures = 0;
      return ready.shift() ?? null;
    },
    giveBack(vm) {
      if (closed || dead.has(vm)) void end(vm);
      else ready.unshift(vm);
    },
    fill,
    waiting: () => ready.length,
    async close() {
      closed = true;
      const over = Promise.all([...ready.splice(0).map(end), ...booting.values()]).then(() => true);
      // One that boots may not have a process yet, or hang: nobody waits for it to come up.
      while (!(await Promise.race([over, sleep(CLOSE_POLL_MS, false)])))
        for (const id of booting.keys()) await endVm(o.host, id, null);
    },
  };
}

export interface WarmKeeper {
  pool(): WarmPool | null;
  waiting(): number;
  warm(): void;
  close(): Promise<void>;
}

/** A pool that is opened on demand, where settings ask for one and VMs boot at all. `host`: null when they do not. */
export function keepWarm(
  o: Omit<Parameters<typeof openWarmPool>[0], 'host' | 'warm'> & { warm: WarmOptions | undefined },
  host: () => Promise<VmHost | null>,
): WarmKeeper {
  let pool: WarmPool | null = null;
  let wanted = false;
  const open = async (warm: WarmOptions) => {
    const found = await host();
    // Closed again before the self-test was over: nothing is to wait any more.
    if (found !== null && wanted && pool === null) pool = openWarmPool({ ...o, warm, host: found });
  };
  return {
    pool: () => pool,
    waiting: () => pool?.waiting() ?? 0,
    warm() {
      wanted = true;
      if (o.warm && o.warm.size > 0) void open(o.warm);
    },
    async close() {
      wanted = false;
      const last = pool;
      pool = null;
      await last?.close();
    },
  };
}

/**
 * What programs of the host say of themselves: versions, where they live, how they are set up. Asking twenty of them
 * takes a second of processor time at every start, so answers are remembered from one start to the next; but only
 * where it is known which files decide an answer, and only until one of these is another file than it was.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname } from 'node:path';

export interface Question {
  /** Absolute path of the program. */
  file: string;
  args: readonly string[];
  /** The PATH it runs with. Of the environment it gets nothing else but HOME: shims look there for their versions. */
  search: string;
  /** Default: the engine's own. */
  home?: string;
}

export interface Said {
  lines: string[];
  /**
   * Names every file that can change the answer; the answer is then remembered. Absent ones count as well: they may
   * come. Never called for an answer of which that is not known.
   */
  decidedBy(files: readonly string[]): Promise<void>;
}

export interface Answers {
  /** Each question is asked once per process. Rejects when the program fails or takes longer than 10 s. */
  ask(question: Question): Promise<Said>;
  /** Writes down what is to be remembered. Never rejects: what could not be written is asked again. */
  keep(): Promise<void>;
}

interface Entry {
  /** Path of each deciding file → its stamp. */
  decided_by: Record<string, string>;
  lines: string[];
}

const FORMAT = 1;
const TIMEOUT_MS = 10_000;
/** Clocks of file systems are coarse: a file changed this shortly before the question may have changed after it. */
const SETTLED_MS = 2000;
/** A system's own programs change with its packages, also where the program itself is the same: in its libraries. */
const PACKAGE_DATABASES = [
  '/var/lib/dpkg/status',
  '/var/lib/rpm/rpmdb.sqlite',
  '/usr/lib/sysimage/rpm/rpmdb.sqlite',
  '/lib/apk/db/installed',
  '/var/lib/pacman/local',
];

/** `file`: where to remember; null to ask anew in every process. A file that cannot be read is as good as none. */
export function openAnswers(file: string | null, now: () => number = Date.now): Answers {
  const asked = new Map<string, Promise<Said>>();
  const kept = new Map<string, Entry>();
  let known: Promise<Record<string, Entry>> | undefined;
  let changed = false;

  async function answer(key: string, question: Question): Promise<Said> {
    known ??= file === null ? Promise.resolve({}) : readEntries(file);
    const entry = (await known)[key];
    if (entry !== undefined && (await isUnchanged(entry))) {
      kept.set(key, entry);
      return { lines: entry.lines, decidedBy: async () => undefined };
    }
    const began_ms = now();
    const lines = await run(question);
    return {
      lines,
      async decidedBy(files) {
        const decided_by = await stampAll([...files, ...PACKAGE_DATABASES], began_ms - SETTLED_MS);
        if (decided_by === null) return;
        kept.set(key, { decided_by, lines });
        changed = true;
      },
    };
  }

  return {
    ask(question) {
      const { file: program, args, search, home = homedir() } = question;
      const key = JSON.stringify([program, args, search, home]);
      const known_answer = asked.get(key) ?? answer(key, question);
      asked.set(key, known_answer);
      return known_answer;
    },
    async keep() {
      if (file === null || !changed) return;
      changed = false;
      await writeEntries(file, Object.fromEntries(kept)).catch(() => undefined);
    },
  };
}

function run({ file, args, search, home = homedir() }: Question): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const env = { PATH: search, HOME: home, LC_ALL: 'C.UTF-8' };
    execFile(file, args, { env, timeout: TIMEOUT_MS, cwd: '/' }, (error, stdout) =>
      error === null ? resolve(stdout.trim().split('\n')) : reject(error),
    );
  });
}

/** Null when a file has changed since `before_ms`: nobody can tell which one the answer was about. */
async function stampAll(files: string[], before_ms: number): Promise<Record<string, string> | null> {
  const stamps = await Promise.all(files.map(async (file) => [file, await stamp(file, before_ms)] as const));
  if (stamps.some(([, text]) => text === null)) return null;
  return Object.fromEntries(stamps) as Record<string, string>;
}

/**
 * Tells a file from any that takes its place, be it by a link that leads elsewhere: the time of change (ctime) is the
 * kernel's, no package manager sets it back.
 */
async function stamp(file: string, before_ms = Number.POSITIVE_INFINITY): Promise<string | null> {
  try {
    const real = await realpath(file);
    const { ino, size, mtimeNs, ctimeNs, ctimeMs } = await stat(real, { bigint: true });
    return Number(ctimeMs) > before_ms ? null : [real, ino, size, mtimeNs, ctimeNs].join(' ');
  } catch {
    return 'absent';
  }
}

async function isUnchanged({ decided_by }: Entry): Promise<boolean> {
  const all = Object.entries(decided_by).map(async ([file, was]) => (await stamp(file)) === was);
  return (await Promise.all(all)).every((same) => same);
}

async function readEntries(file: string): Promise<Record<string, Entry>> {
  try {
    const { format, answers } = JSON.parse(await readFile(file, 'utf8'));
    if (format !== FORMAT) return {};
    return Object.fromEntries(Object.entries(answers).filter(isEntry));
  } catch {
    return {};
  }
}

function isEntry(pair: [string, unknown]): pair is [string, Entry] {
  const { decided_by, lines } = (pair[1] ?? {}) as Partial<Entry>;
  const texts = (of: unknown) => Object.values(of as object).every((one) => typeof one === 'string');
  return Array.isArray(lines) && texts(lines) && typeof decided_by === 'object' && texts(decided_by ?? [0]);
}

async function writeEntries(file: string, answers: Record<string, Entry>): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const made = `${file}.${randomBytes(6).toString('hex')}`;
  try {
    await writeFile(made, JSON.stringify({ format: FORMAT, answers }), { mode: 0o600, flag: 'wx' });
    await rename(made, file);
  } finally {
    await rm(made, { force: true });
  }
}

/**
 * What commands in a sandbox print, kept in one bounded log per sandbox beside its workspace. Several commands may
 * run at once: each brings whole, redacted lines, so that theirs never run into each other.
 */
import path from 'node:path';
import { looksSecret } from '../domain/env-var.ts';
import { makeRedactor } from '../domain/redact.ts';
import { type LogWriter, openLog } from '../store/logs.ts';
import type { EngineContext } from './context.ts';

const LOG_BYTES = 8 * 1024 * 1024;
/** Longer lines are passed on in pieces. */
const LINE_CHARS = 8 * 1024;

type Stream = 'stdout' | 'stderr';

export interface CommandLog {
  write(stream: Stream, chunk: Buffer): void;
  end(): Promise<void>;
}

export class SandboxLogs {
  readonly #ctx: Pick<EngineContext, 'folders' | 'say'>;
  readonly #open = new Map<string, { writer: LogWriter; users: number }>();
  /** The last writer of a log, while it writes what is left: the next one waits for it. */
  readonly #closing = new Map<string, Promise<void>>();

  constructor(ctx: Pick<EngineContext, 'folders' | 'say'>) {
    this.#ctx = ctx;
  }

  path(sandbox_id: string): string {
    return path.join(this.#ctx.folders.sandboxes, sandbox_id, 'commands.jsonl');
  }

  /** The log of one command; secret values of its environment are hidden. */
  command(sandbox_id: string, env: Record<string, string>): CommandLog {
    const secrets = Object.keys(env).flatMap((name) => (looksSecret(name) ? [env[name]!] : []));
    const log = this.#take(sandbox_id);
    const streams = {
      stdout: wholeLines(secrets, (line) => log.writer.write('stdout', line)),
      stderr: wholeLines(secrets, (line) => log.writer.write('stderr', line)),
    };
    return {
      write: (stream, chunk) => streams[stream].push(chunk),
      end: async () => {
        streams.stdout.end();
        streams.stderr.end();
        if (--log.users > 0) return;
        this.#open.delete(sandbox_id);
        const closing = log.writer.close();
        this.#closing.set(sandbox_id, closing);
        await closing;
        if (this.#closing.get(sandbox_id) === closing) this.#closing.delete(sandbox_id);
      },
    };
  }

  #take(sandbox_id: string) {
    let log = this.#open.get(sandbox_id);
    if (!log) {
      const writer = openLog(this.path(sandbox_id), {
        max_bytes: LOG_BYTES,
        secrets: [],
        on_full: 'rotate',
        after: this.#closing.get(sandbox_id),
        on_error: (error) =>
          this.#ctx.say('warn', `the log of ${sandbox_id} is not written`, { error: String(error) }),
      });
      log = { writer, users: 0 };
      this.#open.set(sandbox_id, log);
    }
    log.users++;
    return log;
  }
}

function wholeLines(secrets: string[], emit: (line: Buffer) => void) {
  const redactor = makeRedactor(secrets);
  let rest = '';
  const take = (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) emit(Buffer.from(`${line}\n`));
    if (rest.length < LINE_CHARS) return;
    emit(Buffer.from(`${rest}\n`));
    rest = '';
  };
  return {
    push: (chunk: Buffer) => take(redactor.push(chunk)),
    end() {
      take(redactor.flush());
      if (rest !== '') emit(Buffer.from(`${rest}\n`));
      rest = '';
    },
  };
}

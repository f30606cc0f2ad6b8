/** Turns what was seen of an instance that did not become healthy into a Failure with the next step. Pure. */
import { type Failure, failure, type ListeningPort, type ProbeAnswer } from '../domain/failure.ts';
import { HELD_PORT_NEXT_STEP, type HeldPort, isHeld } from '../domain/held-port.ts';
import { missingLeftOut, takeBackIn } from '../domain/left-out.ts';
import { missingVariable } from '../domain/missing-variable.ts';
import type { MachineExit } from '../isolation/driver.ts';

/** Everything known about the replica that failed the gate. */
export interface Observation {
  /** Where the probes went; inside the machine, when they are forwarded into one. */
  host: string;
  port: number;
  /** The port is forwarded into a machine: a connection says nothing about the app. */
  forwarded?: boolean;
  path: string;
  phase: 'starting' | 'grace';
  startup_timeout_ms: number;
  grace_ms: number;
  memory_limit_bytes: number;
  last_probe: ProbeAnswer | null;
  exit: MachineExit | null;
  listening: ListeningPort[];
  log_tail: string[];
  /** The port that the plan names and that this instance could not get. */
  held?: HeldPort | null;
}

/** In place of an answer's error: it did not come from the app. */
export const STRANGER = 'answered by another program';

const MAX_LOG_LINES = 50;
/** The kernel kills at the limit, sampling sees a little less. */
const NEARLY_ALL_MEMORY = 0.95;

type Told = Pick<Failure, 'code' | 'message' | 'next_step'>;

/** The failure of one replica, stage `health`. An exit outranks everything that was probed. */
export function diagnose(seen: Observation): Failure {
  const told = seen.exit ? explainExit(seen, seen.exit) : explainProbe(seen);
  return failure({
    stage: 'health',
    ...told,
    exit_code: seen.exit?.exit_code ?? null,
    signal: seen.exit?.signal ?? null,
    out_of_memory: told.code === 'APP_OUT_OF_MEMORY',
    last_probe: seen.last_probe,
    listening: seen.listening,
    log_tail: seen.log_tail.slice(-MAX_LOG_LINES),
  });
}

function explainExit(seen: Observation, exit: MachineExit): Told {
  if (ranOutOfMemory(seen, exit)) {
    return {
      code: 'APP_OUT_OF_MEMORY',
      message: `The app ran out of memory (limit ${mebibytes(seen.memory_limit_bytes)}, seen ${mebibytes(exit.peak_memory_bytes)}).`,
      next_step:
        'Raise the memory of the deployment (`kiln scale NAME --size medium`), or make the app use less at start, then publish again.',
    };
  }
  const taken = portTaken(seen);
  const held = taken !== null && (taken.port ?? seen.held?.port) === seen.held?.port ? heldNote(seen) : null;
  if (held !== null)
    return {
      code: 'APP_CRASHED',
      message: `${exitMessage(seen, exit)} ${held}`,
      next_step: HELD_PORT_NEXT_STEP,
    };
  return { code: 'APP_CRASHED', message: exitMessage(seen, exit), next_step: exitNextStep(seen, exit) };
}

/** Also recognised: a SIGKILL at the limit, and V8 giving up on its own heap (which exits with SIGABRT). */
function ranOutOfMemory(seen: Observation, exit: MachineExit): boolean {
  if (exit.reason === 'out_of_memory') return true;
  if (exit.signal === 'SIGKILL' || exit.exit_code === 137) {
    return exit.peak_memory_bytes >= seen.memory_limit_bytes * NEARLY_ALL_MEMORY;
  }
  const aborted = exit.signal === 'SIGABRT' || exit.exit_code === 134;
  return aborted && seen.log_tail.some((line) => line.includes('JavaScript heap out of memory'));
}

function exitMessage(seen: Observation, exit: MachineExit): string {
  const when = seen.phase === 'grace' ? 'during the grace period' : 'before it was healthy';
  if (exit.reason === 'too_many_processes')
    return `The app was stopped ${when}: it started too many processes.`;
  if (exit.reason === 'out_of_disk') return `The app was stopped ${when}: it wrote more than its disk limit.`;
  if (exit.signal) return `The app was ended by ${exit.signal} ${when}.`;
  return `The app ended with exit code ${exit.exit_code} ${when}.`;
}

const PORT_TAKEN = /EADDRINUSE|(?:address|connection) (?:already )?in use|Failed to bind/i;
/** `:::3000`, `127.0.0.1:3000`, `tcp :3000:`, `('0.0.0.0', 3000)`, `port 3000`; not the colons of a time. */
const PORT_NAMED = /(?:(?<!\d):|(?:\d{1,3}\.){3}\d{1,3}:|', |\bport )(\d{2,5})\b/i;

/** Null when the log does not say that a port was taken; the port where it says which. */
function portTaken(seen: Observation): { port: number | null } | null {
  const lines = seen.log_tail.slice(-MAX_LOG_LINES).filter((line) => PORT_TAKEN.test(line.slice(0, 500)));
  if (lines.length === 0) return null;
  const named = lines
    .map((line) => PORT_NAMED.exec(line.slice(0, 500))?.[1])
    .find((port) => port !== undefined);
  return { port: named === undefined ? null : Number(named) };
}

/** 'Port 4567 is held by …': null when the instance got the port it was to have. */
function heldNote({ held }: Observation): string | null {
  if (!held) return null;
  const said = isHeld(held);
  return `${said[0]!.toUpperCase()}${said.slice(1)}, and that is the port the app is published with.`;
}

function exitNextStep(seen: Observation, exit: MachineExit): string {
  const taken = portTaken(seen);
  if (taken !== null) return takenNextStep(seen, taken.port);
  if (exit.exit_code === 0) {
    return 'The run command must stay in the foreground: start the server itself, without `&`, a daemon flag or a one-off script.';
  }
  if (exit.exit_code === 127) {
    return 'Exit code 127 means that a program of the run command was not found: check its name, or add it to the dependencies that are installed.';
  }
  if (exit.exit_code === 126) {
    return 'Exit code 126 means that the run command names a file that cannot be executed: make it executable or name its interpreter.';
  }
  return namedInLog(seen.log_tail) ?? errorInLog(seen.log_tail);
}

function takenNextStep(seen: Observation, port: number | null): string {
  if (port === null || port === seen.port)
    return 'The log says that the port was taken: listen on the port in the PORT environment variable, and start one server only.';
  // The port that the plan names was moved, or is another still.
  if (seen.held)
    return `The log says that port ${port} was taken, which is not the port that the app is published with (${seen.held.port}): let each version and copy use another there, or none.`;
  return `The log says that port ${port} was taken: listen on the port in the PORT environment variable; if the app can only use port ${port}, publish with --port ${port}.`;
}

const MISSING_MODULE =
  /(?:No module named|Cannot find (?:module|package)) ['"]((?:@[\w.-]+\/)?[A-Za-z][\w.-]*)['"./]/;
/** A file of the app itself, or one that it names by its place. */
const MISSING_FILE = /Cannot find module ['"](\/workspace\/[^'"]{1,200}|\.{1,2}\/[^'"]{1,200})['"]/;
/** Node's --env-file, and what others say of theirs. */
const MISSING_ENV_FILE =
  /(?:^|[\s'"/])(\.env(?:\.[\w.-]+)?)['"]?:? (?:not found|does not exist|No such file)/i;

/** What the app itself says is missing; null when it does not say. */
function namedInLog(log_tail: readonly string[]): string | null {
  const left_out = missingLeftOut(log_tail.slice(-MAX_LOG_LINES));
  if (left_out !== null)
    return `The log says that ${left_out.path} cannot be found. ${takeBackIn(left_out.folder)}`;
  for (const line of log_tail.slice(-MAX_LOG_LINES)) {
    const text = line.slice(0, 500);
    const module = MISSING_MODULE.exec(text)?.[1];
    if (module !== undefined)
      return `The log says that ${module} cannot be found: add it to the dependencies that are installed, and publish again.`;
    const file = MISSING_FILE.exec(text)?.[1];
    if (file !== undefined)
      return `The log says that ${file} cannot be found: it is not in the source as it was published, and the build does not write it.`;
    const env_file = MISSING_ENV_FILE.exec(text)?.[1];
    if (env_file !== undefined)
      return `The log says that ${env_file} cannot be found: files of that name are left out as secrets. Start the app without it (Node has --env-file-if-exists), set the variables with \`kiln env set\`, and publish again.`;
    const variable = missingVariable(text);
    if (variable !== null)
      return `The log says that ${variable} is missing: set it with \`kiln env set\`, and publish again.`;
  }
  return null;
}

const CONNECTION_REFUSED = /(?:ECONNREFUSED|connection refused|could not connect to server)/i;
/** `SyntaxError: expected ':'`, `app.errors.ConfigError: …`: how exceptions are printed; their names are in the lines around, too. */
const EXCEPTION = /^\s*(?:Uncaught |Error: )?((?:[\w$]+\.)*[A-Z]\w*(?:Error|Exception)(?: \[\w+\])?: .*\S)/;
const MAX_SHOWN_CHARACTERS = 150;

/** The error that the app ended with, in its own words. */
function errorInLog(log_tail: readonly string[]): string {
  const lines = log_tail.slice(-MAX_LOG_LINES).map((line) => line.slice(0, 500));
  const refused = lines.findLast((line) => CONNECTION_REFUSED.test(line));
  if (refused !== undefined)
    return 'The log says that another service refused the connection (a database, most often): it does not run where the app runs, or its address is another one there. Set the address with `kiln env set`, and publish again.';
  const error = lines.findLast((line) => EXCEPTION.test(line));
  const said = error === undefined ? undefined : EXCEPTION.exec(error)?.[1];
  if (said === undefined)
    return 'Read the last log lines, fix the error, and publish again. A missing environment variable is the most common cause.';
  const shown = said.length > MAX_SHOWN_CHARACTERS ? `${said.slice(0, MAX_SHOWN_CHARACTERS - 1)}…` : said;
  return `The app ended with "${shown}": see the last log lines, fix it, and publish again.`;
}

function explainProbe(seen: Observation): Told {
  if (seen.phase === 'grace') return explainUnstable(seen);
  const answer = seen.last_probe;
  if (answer?.status != null) {
    return answer.status >= 300 && answer.status < 400
      ? explainRedirect(seen, answer)
      : explainStatus(seen, answer.status);
  }
  if (answer?.error === 'timed out') {
    return {
      code: 'HEALTH_TIMEOUT',
      message: `The app accepts connections on port ${seen.port}, but GET ${seen.path} was not answered within ${seconds(answer.duration_ms)}.`,
      next_step:
        'Make the health check path answer without waiting for other services, or name a cheaper one with --health-check-path.',
    };
  }
  // A port forwarded into a machine accepts and resets where nobody listens inside.
  const nobody_inside =
    seen.forwarded && answer?.error === 'reset' && !seen.listening.some((port) => port.port === seen.port);
  if ((answer?.error === 'not http' || answer?.error === 'reset') && !nobody_inside) {
    return {
      code: 'HEALTH_STATUS',
      message: `Something listens on port ${seen.port}, but it does not answer GET ${seen.path} with plain HTTP (${answer.error}).`,
      next_step: 'Serve plain HTTP on PORT; TLS is ended at the edge, so the app must not use https itself.',
    };
  }
  if (answer?.error !== STRANGER) return explainNoConnection(seen);
  const told = explainNoConnection(seen);
  return {
    ...told,
    message: `Port ${seen.port} is held by a program that does not belong to the app. ${told.message}`,
  };
}

function explainUnstable(seen: Observation): Told {
  const answer = seen.last_probe;
  const got =
    answer?.status != null ? `answered ${answer.status}` : `failed (${answer?.error ?? 'no answer'})`;
  return {
    code: 'HEALTH_UNSTABLE',
    message: `The app was healthy, then GET ${seen.path} ${got} during the grace period of ${seconds(seen.grace_ms)}.`,
    next_step:
      'See in the last log lines what happened after the start; the app must answer 2xx without a break for the whole grace period.',
  };
}

function explainRedirect(seen: Observation, answer: ProbeAnswer): Told {
  const to = answer.location === null ? 'elsewhere' : `to ${answer.location}`;
  return {
    code: 'HEALTH_REDIRECT',
    message: `GET ${seen.path} answered ${answer.status} and redirects ${to}; redirects are not followed.`,
    next_step: redirectNextStep(answer.location),
  };
}

function redirectNextStep(location: string | null): string {
  if (location?.startsWith('https:')) {
    return 'The app forces https even where X-Forwarded-Proto says https, as it does behind the edge: make it trust that header, or exempt the health check path from the redirect.';
  }
  if (location?.startsWith('/')) {
    return `Set --health-check-path to a path that answers 2xx itself, for example ${location.split(/[?#]/)[0]}.`;
  }
  return 'Set --health-check-path to a path that answers 2xx itself.';
}

function explainStatus(seen: Observation, status: number): Told {
  return {
    code: 'HEALTH_STATUS',
    message: `GET ${seen.path} answered ${status} for ${seconds(seen.startup_timeout_ms)}; a 2xx is needed.`,
    next_step: statusNextStep(seen.path, status),
  };
}

function statusNextStep(path: string, status: number): string {
  if (status === 404) {
    return `The app runs but has no ${path}: name a path that exists with --health-check-path, or add a route for ${path}.`;
  }
  if (status === 401 || status === 403) {
    return `${path} asks for a login: name a public path with --health-check-path, or exempt ${path} from authentication.`;
  }
  if (status >= 500) {
    return 'The app runs but fails: see its last log lines. A missing environment variable or an unreachable database is the most common cause.';
  }
  return `Make ${path} answer 2xx to a plain GET with the host name localhost, or name another path with --health-check-path.`;
}

function explainNoConnection(seen: Observation): Told {
  const here = seen.listening.filter((port) => port.port === seen.port);
  if (here.length > 0) {
    const addresses = here.map((port) => port.address).join(', ');
    return {
      code: 'WRONG_ADDRESS',
      message: `The app listens on port ${seen.port}, but only on ${addresses}, which cannot be reached from ${seen.host}.`,
      next_step:
        'Bind to 0.0.0.0 (many frameworks: HOST=0.0.0.0 or --host 0.0.0.0) instead of one address only.',
    };
  }
  if (seen.listening.length > 0) {
    const ports = [...new Set(seen.listening.map((port) => port.port))].join(', ');
    const held = heldNote(seen);
    return {
      code: 'WRONG_PORT',
      message: `The app listens on port ${ports}, not on ${seen.port}, which it was given in PORT.${held === null ? '' : ` ${held}`}`,
      next_step: `Listen on the port in the PORT environment variable; if the app can only use a fixed port, publish with --port ${seen.listening[0]!.port}.`,
    };
  }
  const held = heldNote(seen);
  if (held !== null) {
    return {
      code: 'NEVER_LISTENED',
      message: `The app did not listen on any port within ${seconds(seen.startup_timeout_ms)}. ${held}`,
      next_step: HELD_PORT_NEXT_STEP,
    };
  }
  return {
    code: 'NEVER_LISTENED',
    message: `The app did not listen on any port within ${seconds(seen.startup_timeout_ms)}.`,
    next_step:
      'Check that the run command starts a server that listens on PORT; if it only needs longer to start, raise the limit with --startup-limit.',
  };
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 ** 2)} MiB`;
}

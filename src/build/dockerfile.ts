/**
 * What a Dockerfile says about the release, for the plan a person reads: the base image, the port, how its health is
 * asked for, what starts and as whom. Of the last stage and of those it starts from: only they become the image.
 */
import type { Evidence } from '../domain/plan.ts';
import type { App } from './detect/app.ts';
import type { Detection } from './detect/detector.ts';
import { filledIn, type Instruction, type Stage, stagesOf } from './dockerfile-syntax.ts';

export interface DockerfileFacts {
  port: number | null;
  health_check_path: string | null;
  /** How long its HEALTHCHECK lets it start. */
  startup_timeout_ms: number | null;
  evidence: Evidence[];
  warnings: string[];
}

interface Health {
  path: string | null;
  port: number | null;
  start_ms: number | null;
}

const SHOWN_LENGTH = 120;
const MAX_CHECK_LENGTH = 2000;

/** Facts of the Dockerfile of a build context; null when there is none. `of`: its name in there, and the stage to build. */
export function readDockerfile(
  app: App,
  dir: string,
  of: { dockerfile?: string; target?: string } = {},
): DockerfileFacts | null {
  const name = of.dockerfile ?? 'Dockerfile';
  const file = dir === '.' ? name : `${dir}/${name}`;
  const text = app.read(file);
  if (text === null) return null;
  const note = (line: number, found: string, follows: string): Evidence => ({
    ...app.evidence(file, found.slice(0, SHOWN_LENGTH), follows),
    line,
  });
  const stages = stagesOf(text);
  const stage = stages.find((one) => of.target !== undefined && one.name === of.target) ?? stages.at(-1);
  if (!stage) {
    return {
      port: null,
      health_check_path: null,
      startup_timeout_ms: null,
      evidence: [note(1, 'Dockerfile', 'the image is built with BuildKit')],
      warnings: [`${file} has no FROM; BuildKit refuses it.`],
    };
  }
  const base = stage.image ?? stage.from;
  const no_target = of.target !== undefined && stage.name !== of.target;
  const warnings =
    stage.image === null
      ? [
          `${file}:${stage.line}: ${stage.from} names an ARG without a default; BuildKit refuses it without one.`,
        ]
      : [];
  if (no_target) warnings.push(`${file} has no stage called ${of.target}; BuildKit refuses that.`);
  const health = healthOf(stage, file, warnings);
  const port = portOf(stage, health, file, warnings);
  const evidence = [
    note(stage.line, `Dockerfile, FROM ${base}`, 'the image is built with BuildKit'),
    ...(port ? [note(port.line, port.found, `the app is reached on port ${port.port}`)] : []),
    ...(health?.path
      ? [
          note(
            health.line,
            `HEALTHCHECK asks for ${health.path}`,
            `healthy when GET ${health.path} answers 2xx`,
          ),
        ]
      : []),
    ...startEvidence(stage, note, file, warnings),
  ];
  return {
    port: port?.port ?? null,
    health_check_path: health?.path ?? null,
    startup_timeout_ms: health?.start_ms ?? null,
    evidence,
    warnings,
  };
}

/** The app in the image is the one beside the Dockerfile: what Rails answers at /up, it answers there too. */
export function withAppBeside(facts: DockerfileFacts, app: Detection | null): DockerfileFacts {
  const startup_timeout_ms = Math.max(facts.startup_timeout_ms ?? 0, app?.startup_timeout_ms ?? 0) || null;
  const path = app?.health_check_path ?? null;
  if (facts.health_check_path !== null || !app || path === null) return { ...facts, startup_timeout_ms };
  const evidence: Evidence = {
    file: app.evidence[0]?.file ?? '.',
    line: null,
    found: app.framework ?? app.ecosystem,
    follows: `healthy when GET ${path} answers 2xx`,
  };
  return { ...facts, startup_timeout_ms, health_check_path: path, evidence: [...facts.evidence, evidence] };
}

const last = (stage: Stage, name: string): Instruction | undefined =>
  stage.instructions.findLast((one) => one.name === name);

interface Exposed {
  port: number;
  line: number;
  found: string;
}

const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535;

/** TCP ports of EXPOSE, in order. */
function exposed(stage: Stage, file: string, warnings: string[]): Exposed[] {
  const found: Exposed[] = [];
  for (const { name, args, line } of stage.instructions) {
    if (name !== 'EXPOSE') continue;
    for (const word of args.split(/\s+/).filter(Boolean)) {
      const text = filledIn(word.replace(/^(["'])(.*)\1$/, '$2'), stage.values);
      if (text === null)
        warnings.push(
          `${file}:${line}: EXPOSE ${word} has no value here; set port, or give its ARG a default.`,
        );
      // '8080', '8080/tcp', '8000-8010', '127.0.0.1:80:8080'.
      const [, number, protocol] = /(?:^|:)(\d{1,5})(?:-\d{1,5})?(?:\/(\w+))?$/.exec(text ?? '') ?? [];
      const port = Number(number);
      if (isPort(port) && (protocol ?? 'tcp').toLowerCase() === 'tcp')
        found.push({ port, line, found: `EXPOSE ${port}` });
    }
  }
  return found;
}

/** The port that answers HTTP: of those exposed, the one that HEALTHCHECK asks or `ENV PORT` names, else the first. */
function portOf(stage: Stage, health: Health | null, file: string, warnings: string[]): Exposed | null {
  const ports = exposed(stage, file, warnings);
  const named = Number(stage.values.get('PORT'));
  const chosen =
    ports.find(({ port }) => port === health?.port) ?? ports.find(({ port }) => port === named) ?? ports[0];
  if (chosen) {
    const others = [...new Set(ports.map(({ port }) => port))].filter((port) => port !== chosen.port);
    if (others.length > 0 && chosen.port !== health?.port)
      warnings.push(
        `${file} also exposes ${others.slice(0, 10).join(', ')}; ${chosen.port} is used. Set port to choose another.`,
      );
    return chosen;
  }
  if (health?.port)
    return {
      port: health.port,
      line: last(stage, 'HEALTHCHECK')!.line,
      found: `HEALTHCHECK asks port ${health.port}`,
    };
  const env = stage.instructions.findLast(({ name, args }) => name === 'ENV' && /\bPORT\b/.test(args));
  return env && isPort(named) ? { port: named, line: env.line, found: `ENV PORT ${named}` } : null;
}

/** Programs and functions that send an HTTP request; `pg_isready -h localhost` is none. */
const SENDS_REQUEST = /\b(?:https?|curl|wget|fetch|urlopen)\b/;
/** A URL of this machine, with or without its scheme: port, path. */
const LOCAL_URL =
  /(?:https?:\/\/[\w.-]{1,100}|https?:\/\/\[::1?\]|(?<![\w.-])(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]))(?::([\w${}:-]{1,100}?))?(\/[^\s"'`|;<>)\\,]{0,500})?(?=[\s"'`|;<>)\\,\]]|$)/;
/** `http.get({ path: '/health' })`, `'http://localhost:' + port + '/health'`. */
const PATH_BESIDE = /(?:\bpath\b\s*:|\+)\s*\\?["'](\/[^\s"'\\]{0,200})/;

function healthOf(stage: Stage, file: string, warnings: string[]): (Health & { line: number }) | null {
  const check = last(stage, 'HEALTHCHECK');
  const command = /^((?:--\S+\s+)*)CMD\s+(.+)$/is.exec(check?.args ?? '');
  if (!check || !command) return null;
  const none = {
    path: null,
    port: null,
    start_ms: duration(/--start-period=(\S+)/.exec(command[1]!)?.[1] ?? ''),
    line: check.line,
  };
  const asked = command[2]!.slice(0, MAX_CHECK_LENGTH);
  const url = SENDS_REQUEST.test(asked) ? LOCAL_URL.exec(asked) : null;
  const beside = SENDS_REQUEST.test(asked) ? PATH_BESIDE.exec(asked)?.[1] : undefined;
  const path = filledIn((url?.[2] ?? beside ?? (url ? '/' : '$')).replace(/#.*$/, ''), stage.values);
  if (path === null || !/^\/[\x21-\x7e]*$/.test(path)) {
    warnings.push(
      `${file}:${check.line}: what HEALTHCHECK runs is not one plain request, so health_check_path decides (default /). Set it to a path that answers 2xx.`,
    );
    return none;
  }
  const port = Number(filledIn(url?.[1] ?? '', stage.values) ?? '');
  return { ...none, path, port: isPort(port) ? port : null };
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const MAX_START_MS = 3_600_000;

/** Go's `1m30s` in milliseconds; null when it is not one, or nothing. */
function duration(text: string): number | null {
  let total = 0;
  for (const [, number, unit] of text.slice(0, 50).matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g))
    total += Number(number) * UNIT_MS[unit!]!;
  return total > 0 ? Math.min(Math.round(total), MAX_START_MS) : null;
}

function startEvidence(
  stage: Stage,
  note: (line: number, found: string, follows: string) => Evidence,
  file: string,
  warnings: string[],
): Evidence[] {
  const entrypoint = last(stage, 'ENTRYPOINT');
  const command = last(stage, 'CMD');
  const user = last(stage, 'USER');
  const of = entrypoint ?? command;
  if (!of && stage.image?.toLowerCase() === 'scratch')
    warnings.push(
      `${file}: the last stage is FROM scratch and has neither CMD nor ENTRYPOINT, so the image starts nothing.`,
    );
  const name = user && filledIn(user.args, stage.values);
  return [
    ...(of ? [note(of.line, `${of.name} ${of.args}`, 'this starts the server')] : []),
    ...(user && name && !/^(?:root|0)(?::|$)/.test(name)
      ? [note(user.line, `USER ${name}`, `it runs as ${name}`)]
      : []),
  ];
}

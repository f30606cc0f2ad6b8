/** What a Dockerfile says about the release: the port and the base image, for the plan a person reads. */
import type { Evidence } from '../domain/plan.ts';
import type { App } from './detect/app.ts';

export interface DockerfileFacts {
  port: number | null;
  evidence: Evidence[];
}

/** Facts of `<dir>/Dockerfile`; null when there is none. */
export function readDockerfile(app: App, dir: string): DockerfileFacts | null {
  const file = dir === '.' ? 'Dockerfile' : `${dir}/Dockerfile`;
  const text = app.read(file);
  if (text === null) return null;
  const lines = text.split('\n');
  // Only the last stage becomes the image.
  const last_from = lines.findLastIndex((line) => /^\s*FROM\s/i.test(line));
  const base = /^\s*FROM\s+(?:--\S+\s+)*(\S{1,200})/i.exec(lines[last_from] ?? '')?.[1];
  const found = base ? `Dockerfile, FROM ${base}` : 'Dockerfile';
  const evidence: Evidence[] = [
    {
      ...app.evidence(file, found, 'the image is built with BuildKit'),
      line: last_from < 0 ? 1 : last_from + 1,
    },
  ];
  const at = lines.findIndex((line, index) => index > last_from && /^\s*EXPOSE\s+\d{1,5}\b/i.test(line));
  const port = Number(/\d{1,5}/.exec(lines[at] ?? '')?.[0]);
  if (!(port >= 1 && port <= 65_535)) return { port: null, evidence };
  evidence.push({
    ...app.evidence(file, `EXPOSE ${port}`, `the app is reached on port ${port}`),
    line: at + 1,
  });
  return { port, evidence };
}

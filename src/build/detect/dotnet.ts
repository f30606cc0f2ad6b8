/** .NET: one web project, published and run. */
import { stringAt } from '../manifest.ts';
import { quote } from '../quote.ts';
import type { App } from './app.ts';
import { type Detector, detection } from './detector.ts';

const WEB = /Sdk="Microsoft\.NET\.Sdk\.Web"/;

export const dotnet: Detector = {
  name: 'dotnet',
  looks_for: ['*.csproj', '*.fsproj', '*.sln'],
  detect: (app) => {
    const projects = app.code(['csproj', 'fsproj', 'vbproj'], 3);
    if (projects.length === 0) return null;
    const web = projects.filter((file) => app.search([file], WEB));
    const chosen =
      projects.find((file) => file === app.entrypoint) ??
      (web.length === 1
        ? web[0]
        : (web.find((file) => !file.includes('/')) ?? (projects.length === 1 ? projects[0] : undefined)));
    if (!chosen) {
      const named = (web.length > 0 ? web : projects).slice(0, 20);
      return {
        stuck: `${web.length > 0 ? `${web.length} web projects` : 'No web project, and several others'} are here: ${named.join(', ')}.`,
        next_step: `Name one, for example entrypoint = "${named[0]}".`,
        evidence: [],
      };
    }
    const assembly =
      app.search([chosen], /<AssemblyName>([^<]{1,200})</)?.match[1] ??
      chosen
        .split('/')
        .at(-1)!
        .replace(/\.\w+proj$/, '');
    return detection({
      ecosystem: 'dotnet',
      framework: web.includes(chosen) ? 'aspnet' : null,
      kind: 'dynamic',
      install: [`dotnet restore ${quote(chosen)}`],
      build: [
        `dotnet publish ${quote(chosen)} --no-restore --configuration Release --output .kiln/app -p:ContinuousIntegrationBuild=true`,
      ],
      start: `export ASPNETCORE_URLS="http://0.0.0.0:$PORT"; exec dotnet ${quote(`.kiln/app/${assembly}.dll`)}`,
      build_env: { DOTNET_CLI_TELEMETRY_OPTOUT: '1', DOTNET_NOLOGO: '1' },
      run_env: { ASPNETCORE_ENVIRONMENT: 'Production', DOTNET_CLI_TELEMETRY_OPTOUT: '1' },
      toolchains: [dotnetVersion(app, chosen)],
      evidence: [
        app.evidence(
          chosen,
          web.includes(chosen) ? 'a web project' : 'the only project',
          'this is published and run',
          /Sdk="/,
        ),
      ],
      would_change: ['entrypoint names another project file.'],
    });
  },
};

function dotnetVersion(app: App, project: string) {
  const exact = app.exists('global.json') ? stringAt(app.jsonc('global.json'), 'sdk', 'version') : null;
  if (exact) return { name: 'dotnet', version: exact, source: 'global.json' };
  const target = app.search([project], /<TargetFramework>net(\d+\.\d+)/)?.match[1] ?? null;
  return {
    name: 'dotnet',
    version: target === null ? null : `>=${target}`,
    source: target === null ? null : project,
  };
}

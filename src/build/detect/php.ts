/** PHP: Composer, Laravel, Symfony, Slim and plain files, behind PHP's own server. */
import type { Evidence, Toolchain } from '../../domain/plan.ts';
import { stringAt, type Table, tableAt } from '../manifest.ts';
import { quote } from '../quote.ts';
import { type App, versionFile } from './app.ts';
import { type Detector, detection } from './detector.ts';
import { browserAssets } from './node/assets.ts';

const FRAMEWORKS: [string, string][] = [
  ['laravel/framework', 'laravel'],
  ['symfony/framework-bundle', 'symfony'],
  ['slim/slim', 'slim'],
];
const COMPOSER = 'composer install --no-dev --no-interaction --no-progress --optimize-autoloader';

export const php: Detector = {
  name: 'php',
  looks_for: ['composer.json', 'index.php'],
  detect: (app) => {
    const composer = app.json('composer.json');
    const asked = app.entrypoint?.endsWith('/index.php') ? app.first(app.entrypoint) : null;
    const served = asked ?? app.first('public/index.php', 'web/index.php', 'index.php');
    if (!composer && !served) return null;
    const requires = tableAt(composer, 'require');
    const [required, framework] = FRAMEWORKS.find(([name]) => name in requires) ?? [null, null];
    const laravel = framework === 'laravel' && app.exists('artisan');
    if (!served && !laravel) {
      return {
        stuck: 'composer.json is there, but no index.php (also not in public/ or web/).',
        next_step: 'Add public/index.php, or give run_command, for example `php bin/server.php`.',
        evidence: [app.evidence('composer.json', 'composer.json', 'this is a PHP project')],
      };
    }
    const folder = served?.includes('/') ? served.slice(0, served.lastIndexOf('/')) : '.';
    const assets = browserAssets(app);
    const whole = 'PHP serves the whole folder, other files in it too. Move what is public into public/.';
    return detection({
      ecosystem: 'php',
      framework,
      kind: 'dynamic',
      install: [...(composer ? [COMPOSER] : []), ...assets.install],
      build: assets.build,
      // PHP's server answers paths that are no file with index.php, as a front controller needs it.
      start: laravel
        ? 'exec php artisan serve --host=0.0.0.0 --port="$PORT" --no-reload'
        : `exec php -S "0.0.0.0:$PORT" -t ${quote(folder)}`,
      health_check_path: laravel
        ? (app.search(['bootstrap/app.php'], /\bhealth:\s*['"](\/[\w/-]{1,100})['"]/)?.match[1] ?? null)
        : null,
      build_env: { COMPOSER_ALLOW_SUPERUSER: '1', ...assets.build_env },
      run_env: {
        PHP_CLI_SERVER_WORKERS: '4',
        ...(laravel ? { APP_ENV: 'production', LOG_CHANNEL: 'stderr' } : {}),
      },
      toolchains: [...phpTools(app, composer), ...assets.toolchains],
      evidence: [...phpEvidence(app, composer, required, served), ...assets.evidence],
      would_change: ['run_command starts another server, for example FrankenPHP or RoadRunner.'],
      warnings: [
        ...(laravel ? ['Laravel needs APP_KEY: set it with `kiln env set`.'] : []),
        ...(folder === '.' && !laravel ? [whole] : []),
      ],
    });
  },
};

function phpTools(app: App, composer: Table | null): Toolchain[] {
  const version = stringAt(composer, 'require', 'php');
  const pinned = versionFile(app, 'php', '.php-version') ?? app.pinned('php');
  const tools = [pinned ?? { name: 'php', version, source: version === null ? null : 'composer.json' }];
  return composer ? [...tools, { name: 'composer', version: null, source: null }] : tools;
}

function phpEvidence(
  app: App,
  composer: Table | null,
  required: string | null,
  served: string | null,
): Evidence[] {
  const evidence: Evidence[] = [];
  if (composer) {
    evidence.push(
      app.evidence('composer.json', 'composer.json', 'packages are installed with Composer', '"require"'),
    );
  }
  if (required) {
    evidence.push(
      app.evidence('composer.json', `requires ${required}`, 'this is its framework', `"${required}"`),
    );
  }
  if (served) evidence.push(app.evidence(served, served, 'requests are answered by it'));
  return evidence;
}

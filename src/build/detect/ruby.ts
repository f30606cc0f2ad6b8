/** Ruby: Bundler, Rails, Rack and Sinatra. */
import { quote } from '../quote.ts';
import { type App, versionFile } from './app.ts';
import { type Detection, type Detector, detection } from './detector.ts';
import { browserAssets } from './node/assets.ts';

const gem = (app: App, name: string) => app.line('Gemfile', new RegExp(`^\\s*gem\\s+['"]${name}['"]`));

export const ruby: Detector = {
  name: 'ruby',
  looks_for: ['Gemfile', 'server.rb'],
  detect: (app) => {
    if (!app.exists('Gemfile')) return detectScript(app);
    const start = startOf(app);
    const manifest = app.evidence('Gemfile', 'Gemfile', 'this is a Ruby app');
    if (!start) {
      return {
        stuck: 'Gemfile is there, but neither Rails nor a config.ru nor a Sinatra file.',
        next_step: 'Add config.ru, or give run_command, for example `bundle exec ruby app.rb`.',
        evidence: [manifest],
      };
    }
    const rails = start.framework === 'rails';
    const assets = browserAssets(app);
    const pipeline = rails && (app.exists('app/assets') || app.exists('app/javascript'));
    return detection({
      ecosystem: 'ruby',
      framework: start.framework,
      kind: 'dynamic',
      install: ['bundle install', ...assets.install],
      build: [
        ...(pipeline ? [] : assets.build),
        ...(pipeline ? ['SECRET_KEY_BASE_DUMMY=1 bundle exec rails assets:precompile'] : []),
        ...(rails && gem(app, 'bootsnap') !== null
          ? ['bundle exec bootsnap precompile --gemfile app/ lib/']
          : []),
      ],
      start: start.command,
      health_check_path: rails && app.line('config/routes.rb', 'rails/health#show') !== null ? '/up' : null,
      startup_timeout_ms: rails ? 120_000 : null,
      build_env: {
        BUNDLE_PATH: 'vendor/bundle',
        BUNDLE_WITHOUT: 'development:test',
        RAILS_ENV: 'production',
        ...assets.build_env,
      },
      run_env: {
        BUNDLE_PATH: 'vendor/bundle',
        BUNDLE_WITHOUT: 'development:test',
        RACK_ENV: 'production',
        ...(rails
          ? { RAILS_ENV: 'production', RAILS_LOG_TO_STDOUT: '1', RAILS_SERVE_STATIC_FILES: '1' }
          : {}),
      },
      toolchains: [rubyVersion(app), ...assets.toolchains],
      evidence: [manifest, ...start.evidence, ...assets.evidence],
      would_change: ['run_command (or a Procfile with a `web:` line) starts something else.'],
      warnings: rails
        ? ['Rails needs SECRET_KEY_BASE or RAILS_MASTER_KEY: set one with `kiln env set`.']
        : [],
    });
  },
};

/** A Ruby file that listens by itself and needs no gems. */
function detectScript(app: App): Detection | null {
  const asked = app.entrypoint?.endsWith('.rb') ? app.first(app.entrypoint) : null;
  const file = asked ?? app.first('server.rb', 'app.rb', 'main.rb');
  const listens = file && app.search([file], /TCPServer|HTTPServer/);
  if (!listens) return null;
  const evidence = [{ ...app.evidence(file, `${file} listens`, 'this file is run'), line: listens.line }];
  const toolchains = [rubyVersion(app)];
  return detection({
    ecosystem: 'ruby',
    kind: 'dynamic',
    start: `exec ruby ${quote(file)}`,
    toolchains,
    evidence,
  });
}

function startOf(app: App) {
  const rails = gem(app, 'rails') ?? gem(app, 'railties');
  if (rails !== null) {
    const evidence = [{ ...app.evidence('Gemfile', 'gem rails', 'this is a Rails app'), line: rails }];
    return { framework: 'rails', command: 'exec bundle exec rails server -b 0.0.0.0 -p "$PORT"', evidence };
  }
  const framework = gem(app, 'sinatra') === null ? null : 'sinatra';
  if (app.exists('config.ru')) {
    const evidence = [app.evidence('config.ru', 'config.ru', 'a Rack app')];
    const puma = gem(app, 'puma') !== null;
    const command = puma
      ? 'exec bundle exec puma -b "tcp://0.0.0.0:$PORT"'
      : 'exec bundle exec rackup -o 0.0.0.0 -p "$PORT"';
    return { framework: framework ?? 'rack', command, evidence };
  }
  const asked = app.entrypoint?.endsWith('.rb') ? app.first(app.entrypoint) : null;
  const file = asked ?? app.first('app.rb', 'main.rb', 'server.rb', 'web.rb');
  if (!framework || !file) return null;
  const evidence = [app.evidence(file, file, 'a Sinatra app', /require ['"]sinatra/)];
  return { framework, command: `exec bundle exec ruby ${quote(file)} -o 0.0.0.0 -p "$PORT"`, evidence };
}

function rubyVersion(app: App) {
  const file = versionFile(app, 'ruby', '.ruby-version') ?? app.pinned('ruby');
  if (file) return { ...file, version: file.version!.replace(/^ruby-/, '') };
  const named = app.search(['Gemfile'], /^\s*ruby\s+['"]([^'"]{1,50})['"]/)?.match[1] ?? null;
  return { name: 'ruby', version: named, source: named === null ? null : 'Gemfile' };
}

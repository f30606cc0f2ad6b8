/** Java and Kotlin: Maven and Gradle, one module or several, Spring Boot, Quarkus, Ktor, and runnable jars. */
import type { Evidence, Toolchain } from '../../domain/plan.ts';
import { cleanPath } from '../files.ts';
import { quote } from '../quote.ts';
import { type App, versionFile } from './app.ts';
import { type Detector, detection, type Stuck } from './detector.ts';

const FRAMEWORKS: [RegExp, string][] = [
  [/spring-boot|org\.springframework\.boot|libs\.plugins\.spring\.?boot/i, 'spring-boot'],
  [/io\.quarkus|libs\.plugins\.quarkus/, 'quarkus'],
  [/io\.micronaut|libs\.plugins\.micronaut/, 'micronaut'],
  [/io\.ktor|libs\.plugins\.ktor/, 'ktor'],
  [/io\.javalin/, 'javalin'],
];
/** What only the module of a program has, not one that others use. */
const PROGRAM_MAVEN =
  /spring-boot-maven-plugin|quarkus-maven-plugin|micronaut-maven-plugin|<mainClass>|<exec\.mainClass>|maven-shade-plugin/;
const PROGRAM_GRADLE =
  /org\.springframework\.boot|libs\.plugins\.(?:spring\.?boot|ktor|quarkus|shadow)|io\.ktor\.plugin|io\.quarkus['"]|io\.micronaut\.application|^\s*(?:id\s*\(?\s*['"])?application['"]?\)?\s*$|\bmainClass\b|shadow['"]/im;
const MAX_MODULES = 50;

interface Build {
  tool: 'maven' | 'gradle';
  /** The file that was looked at, and the one of the program's module: the same when there is one module. */
  manifest: string;
  module_manifest: string;
  /** Folder of the program's module: '.' when there is one. */
  module: string;
}

export const java: Detector = {
  name: 'java',
  looks_for: ['pom.xml', 'build.gradle', 'build.gradle.kts', 'settings.gradle'],
  detect: (app) => {
    const build = buildOf(app);
    if (!build || 'stuck' in build) return build;
    const { manifest, module_manifest, module } = build;
    const maven = build.tool === 'maven';
    const hit = frameworkOf(app, build);
    const wrapper = app.exists(maven ? 'mvnw' : 'gradlew');
    const made = maven ? mavenBuild(app, build, hit?.name) : gradleBuild(app, build, hit?.name);
    if ('stuck' in made) return made;
    const health = [manifest, module_manifest].some((file) => app.line(file, 'starter-actuator') !== null);
    return detection({
      ecosystem: 'java',
      framework: hit?.name ?? null,
      kind: 'dynamic',
      build: [made.command],
      start: made.start,
      health_check_path: health ? '/actuator/health' : null,
      startup_timeout_ms: 120_000,
      // Gradle keeps its downloads there, and a release does not.
      build_env: maven ? {} : { GRADLE_USER_HOME: '.kiln/tools/gradle' },
      toolchains: [
        javaVersion(app, [module_manifest, manifest]),
        ...(wrapper ? [] : [{ name: maven ? 'mvn' : 'gradle', version: null, source: null }]),
      ],
      evidence: [
        app.evidence(
          manifest,
          manifest,
          `built with ${maven ? 'Maven' : 'Gradle'}${wrapper ? ' in the version of its wrapper' : ''}`,
        ),
        ...(module === '.'
          ? []
          : [app.evidence(module_manifest, `module ${module}`, 'the module that is a program')]),
        ...(hit ? [hit.evidence] : []),
      ],
      would_change: [
        ...(module === '.' ? [] : ['entrypoint names the folder of another module.']),
        'run_command starts another jar or class, for example `java -cp target/classes com.example.Main`.',
      ],
      warnings: hit
        ? []
        : ['No known framework: what the build makes is run; it has to be runnable and to listen on PORT.'],
    });
  },
};

function buildOf(app: App): Build | Stuck | null {
  const pom = app.first('pom.xml');
  const settings = app.first('settings.gradle.kts', 'settings.gradle');
  const manifest = pom ?? app.first('build.gradle.kts', 'build.gradle') ?? settings;
  if (!manifest) return null;
  const modules = pom ? mavenModules(app) : settings ? gradleModules(app, settings) : [];
  const program = pom ? PROGRAM_MAVEN : PROGRAM_GRADLE;
  const fileOf = (dir: string) =>
    app.first(...(pom ? ['pom.xml'] : ['build.gradle.kts', 'build.gradle']).map((name) => `${dir}/${name}`));
  const found = modules.flatMap((module) => {
    const file = fileOf(module);
    return file ? [{ module, file }] : [];
  });
  const asked = found.find(({ module, file }) => module === app.entrypoint || file === app.entrypoint);
  const programs = found.filter(({ file }) => program.test(app.read(file)?.slice(0, 100_000) ?? ''));
  const tool = pom ? 'maven' : 'gradle';
  const own = { tool, manifest, module_manifest: manifest, module: '.' } as const;
  const chosen = asked ?? (programs.length === 1 ? programs[0] : undefined);
  if (chosen) return { ...own, module_manifest: chosen.file, module: chosen.module };
  // A root that lists modules is one itself only with Gradle, and with code of its own.
  const root_is_app = found.length === 0 || app.exists('src/main');
  if (root_is_app && manifest !== settings) return own;
  const names = (programs.length > 0 ? programs : found).map(({ module }) => module).slice(0, 20);
  return {
    stuck:
      names.length === 0
        ? `${manifest} is there, but no build file and no module with one.`
        : `${manifest} lists ${programs.length || 'several'} modules that could be the program: ${names.join(', ')}.`,
    next_step:
      names.length === 0
        ? 'Add build.gradle, or give build_command and run_command.'
        : `Name one, for example entrypoint = "${names[0]}".`,
    evidence: [app.evidence(manifest, manifest, 'this is a Java project')],
  };
}

const inside = (names: string[]): string[] =>
  names
    .slice(0, MAX_MODULES)
    .flatMap((name) => cleanPath(name) ?? [])
    .filter((dir) => dir !== '.');

const mavenModules = (app: App): string[] =>
  inside(
    [
      ...(app.read('pom.xml') ?? '').slice(0, 200_000).matchAll(/<module>\s*([\w./-]{1,200})\s*<\/module>/g),
    ].map(([, name]) => name!),
  );

/** `include("app", ":lib:core")`: a colon is a folder. */
function gradleModules(app: App, settings: string): string[] {
  const text = (app.read(settings) ?? '').slice(0, 100_000);
  const lists = [...text.matchAll(/^\s*include\b([^\n]{1,1000}(?:,\s*\n[^\n]{1,200}){0,50})/gm)];
  return inside(
    lists.flatMap(([, list]) =>
      [...list!.matchAll(/['"]:?([\w:.-]{1,200})['"]/g)].map(([, name]) => name!.replaceAll(':', '/')),
    ),
  );
}

function frameworkOf(app: App, of: Build): { name: string; evidence: Evidence } | null {
  for (const file of new Set([of.module_manifest, of.manifest])) {
    for (const [pattern, name] of FRAMEWORKS) {
      const line = app.line(file, pattern);
      if (line !== null)
        return { name, evidence: { ...app.evidence(file, name, `the framework is ${name}`), line } };
    }
  }
  return null;
}

interface Made {
  command: string;
  start: string;
}

/** The first jar that is a program; the name in it has the version, which only the build knows. */
const jarIn = (folder: string, ending = '.jar'): string =>
  `"$(ls ${quote(folder)}/*${ending} | grep -v -e '-plain\\.jar$' -e '-sources\\.jar$' -e '-javadoc\\.jar$' -e '/original-' | head -n 1)"`;

const below = (module: string, path: string): string => (module === '.' ? path : `${module}/${path}`);

function mavenBuild(app: App, of: Build, framework: string | undefined): Made | Stuck {
  const war = app.line(of.module_manifest, /<packaging>\s*war\s*</);
  if (war !== null && framework !== 'spring-boot') {
    return {
      stuck: `${of.module_manifest}:${war} makes a WAR, which runs only inside a servlet container.`,
      next_step:
        'Embed a server (Spring Boot does) and package a jar, or give run_command for your container.',
      evidence: [app.evidence(of.module_manifest, 'packaging war', 'not a program by itself', /<packaging>/)],
    };
  }
  // `sh`, because archives lose the executable bit.
  const tool = app.exists('mvnw') ? 'sh ./mvnw' : 'mvn';
  const module = of.module === '.' ? '' : ` --projects ${quote(of.module)} --also-make`;
  const jar =
    framework === 'quarkus'
      ? quote(below(of.module, 'target/quarkus-app/quarkus-run.jar'))
      : jarIn(below(of.module, 'target'), war === null ? '.jar' : '.war');
  return {
    command: `${tool} --batch-mode --no-transfer-progress -DskipTests${module} package`,
    start: `exec java ${portFlags(framework)}-jar ${jar}`,
  };
}

function gradleBuild(app: App, of: Build, framework: string | undefined): Made {
  const tool = app.exists('gradlew') ? 'sh ./gradlew' : 'gradle';
  const text = app.read(of.module_manifest)?.slice(0, 100_000) ?? '';
  const path = of.module === '.' ? '' : `:${of.module.replaceAll('/', ':')}:`;
  const run = (task: string) => `${tool} --no-daemon --console=plain ${path}${task} -x test`;
  const jars = below(of.module, 'build/libs');
  const jar = (name: string) => `exec java ${portFlags(framework)}-jar ${name}`;
  if (framework === 'quarkus')
    return {
      command: run('build'),
      start: jar(quote(below(of.module, 'build/quarkus-app/quarkus-run.jar'))),
    };
  if (framework === 'spring-boot') return { command: run('bootJar'), start: jar(jarIn(jars)) };
  // The jar of `build` has none of the libraries in it; these put them in.
  if (/io\.ktor\.plugin|libs\.plugins\.ktor\b/.test(text))
    return { command: run('buildFatJar'), start: jar(jarIn(jars, '-all.jar')) };
  if (/shadow['")]|libs\.plugins\.shadow|io\.micronaut\.application/.test(text))
    return { command: run('shadowJar'), start: jar(jarIn(jars, '-all.jar')) };
  if (/^\s*(?:id\s*\(?\s*['"])?application['"]?\)?\s*$|\bapplication\s*\{/m.test(text)) {
    const folder = quote(below(of.module, 'build/install'));
    return {
      command: run('installDist'),
      start: `exec sh "$(ls ${folder}/*/bin/* | grep -v '\\.bat$' | head -n 1)"`,
    };
  }
  return { command: run('build'), start: jar(jarIn(jars)) };
}

/** Each framework has its own name for the port; they are given on the command line, where PORT is known. */
function portFlags(framework: string | undefined): string {
  if (framework === 'spring-boot') return '-Dserver.port="$PORT" ';
  if (framework === 'quarkus') return '-Dquarkus.http.port="$PORT" -Dquarkus.http.host=0.0.0.0 ';
  return framework === 'micronaut' ? '-Dmicronaut.server.port="$PORT" ' : '';
}

function javaVersion(app: App, manifests: string[]): Toolchain {
  const file = app.pinned('java') ?? versionFile(app, 'java', '.java-version');
  if (file) return file;
  const system = app.search(['system.properties'], /^java\.runtime\.version\s*=\s*(\S{1,30})/);
  if (system) return { name: 'java', version: system.match[1]!, source: 'system.properties' };
  const sdkman = app.search(['.sdkmanrc'], /^java\s*=\s*(\d[\w.+]{0,30})/);
  if (sdkman) return { name: 'java', version: sdkman.match[1]!, source: '.sdkmanrc' };
  const named = app.search(
    [...new Set(manifests)],
    /<(?:java\.version|maven\.compiler\.release|maven\.compiler\.source|release)>\s*([\d.]{1,10})\s*<|JavaLanguageVersion\.of\((\d{1,3})\)|jvmToolchain\((\d{1,3})\)/,
  );
  const version = named?.match.slice(1).find((group) => group !== undefined);
  return version
    ? { name: 'java', version: `>=${version}`, source: named!.file }
    : { name: 'java', version: null, source: null };
}

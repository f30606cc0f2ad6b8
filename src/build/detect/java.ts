/** Java and Kotlin: Maven and Gradle, Spring Boot, Quarkus, and runnable jars. */
import type { Toolchain } from '../../domain/plan.ts';
import { type App, versionFile } from './app.ts';
import { type Detector, detection } from './detector.ts';

const FRAMEWORKS: [RegExp, string][] = [
  [/spring-boot|org\.springframework\.boot/, 'spring-boot'],
  [/io\.quarkus/, 'quarkus'],
  [/io\.micronaut/, 'micronaut'],
  [/io\.ktor/, 'ktor'],
  [/io\.javalin/, 'javalin'],
];

export const java: Detector = {
  name: 'java',
  looks_for: ['pom.xml', 'build.gradle', 'build.gradle.kts'],
  detect: (app) => {
    const manifest = app.first('pom.xml', 'build.gradle.kts', 'build.gradle');
    if (!manifest) return null;
    const maven = manifest === 'pom.xml';
    const hit = FRAMEWORKS.map(([pattern, name]) => ({ name, line: app.line(manifest, pattern) })).find(
      ({ line }) => line !== null,
    );
    const jars = maven ? 'target' : 'build/libs';
    // The wrapper has the version the authors use; `sh` because archives lose the executable bit.
    const wrapper = maven ? app.exists('mvnw') : app.exists('gradlew');
    const tool = maven ? (wrapper ? 'sh ./mvnw' : 'mvn') : wrapper ? 'sh ./gradlew' : 'gradle';
    const build = maven
      ? `${tool} --batch-mode --no-transfer-progress -DskipTests package`
      : `${tool} --no-daemon --console=plain ${hit?.name === 'spring-boot' ? 'bootJar' : 'build'} -x test`;
    const quarkus = hit?.name === 'quarkus';
    const jar = quarkus
      ? `${maven ? 'target' : 'build'}/quarkus-app/quarkus-run.jar`
      : `"$(ls ${jars}/*.jar | grep -v -e '-plain\\.jar$' -e '-sources\\.jar$' -e '/original-' | head -n 1)"`;
    const health = app.line(manifest, 'spring-boot-starter-actuator') === null ? null : '/actuator/health';
    return detection({
      ecosystem: 'java',
      framework: hit?.name ?? null,
      kind: 'dynamic',
      build: [build],
      start: `exec java -jar ${jar}`,
      health_check_path: health,
      startup_timeout_ms: 120_000,
      build_env: maven ? {} : { GRADLE_USER_HOME: '.kiln/gradle' },
      run_env: {},
      ...portSetting(hit?.name ?? null, jar),
      toolchains: [
        javaVersion(app, manifest),
        ...(wrapper ? [] : [{ name: maven ? 'mvn' : 'gradle', version: null, source: null }]),
      ],
      evidence: [
        app.evidence(
          manifest,
          manifest,
          `built with ${maven ? 'Maven' : 'Gradle'}${wrapper ? ' in the version of its wrapper' : ''}`,
        ),
        ...(hit
          ? [{ ...app.evidence(manifest, hit.name, `the framework is ${hit.name}`), line: hit.line }]
          : []),
      ],
      would_change: [
        'run_command starts another jar or class, for example `java -cp target/classes com.example.Main`.',
      ],
      warnings: hit
        ? []
        : [
            'No known framework: the first jar of the build is run; it has to be runnable and to listen on PORT.',
          ],
    });
  },
};

/** Each framework has its own name for the port; they are given on the command line, where PORT is known. */
function portSetting(framework: string | null, jar: string): { start?: string } {
  if (framework === 'spring-boot') return { start: `exec java -Dserver.port="$PORT" -jar ${jar}` };
  if (framework === 'quarkus')
    return { start: `exec java -Dquarkus.http.port="$PORT" -Dquarkus.http.host=0.0.0.0 -jar ${jar}` };
  if (framework === 'micronaut') return { start: `exec java -Dmicronaut.server.port="$PORT" -jar ${jar}` };
  return {};
}

function javaVersion(app: App, manifest: string): Toolchain {
  const file = app.pinned('java') ?? versionFile(app, 'java', '.java-version');
  if (file) return file;
  const system = app.search(['system.properties'], /^java\.runtime\.version\s*=\s*(\S{1,30})/);
  if (system) return { name: 'java', version: system.match[1]!, source: 'system.properties' };
  const named = app.search(
    [manifest],
    /<(?:java\.version|maven\.compiler\.release|maven\.compiler\.source|release)>\s*([\d.]{1,10})\s*<|JavaLanguageVersion\.of\((\d{1,3})\)|jvmToolchain\((\d{1,3})\)/,
  );
  const version = named?.match.slice(1).find((group) => group !== undefined);
  return version
    ? { name: 'java', version: `>=${version}`, source: manifest }
    : { name: 'java', version: null, source: null };
}

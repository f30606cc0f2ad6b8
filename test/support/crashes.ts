/** An engine that is killed, the publishes it is killed in, and what must hold afterwards. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { nodeServer, staticSite } from './apps.ts';
import type { Json } from './client.ts';
import { tempDir } from './folders.ts';
import { type KilnProcess, startKilnProcess } from './kiln.ts';
import { walk } from './walker.ts';

const SETTLED_WITHIN_MS = 30_000;

export type App = 'static' | 'dynamic';

export class Crashes {
  readonly data_dir: string;
  /** Folders of the two apps. */
  readonly apps: Record<App, string>;
  /** The engine that runs now: every restart makes another. */
  kiln: KilnProcess;
  readonly #deployments = new Map<App, Json>();

  private constructor(data_dir: string, apps: Record<App, string>, kiln: KilnProcess) {
    this.data_dir = data_dir;
    this.apps = apps;
    this.kiln = kiln;
  }

  static async open(): Promise<Crashes> {
    const data_dir = await tempDir('crash');
    const apps = {
      static: await staticSite('static'),
      dynamic: await nodeServer('dynamic', '', 'setTimeout(() => {}, 0);'),
    };
    return new Crashes(data_dir, apps, await startKilnProcess(data_dir));
  }

  async close(): Promise<void> {
    await this.kiln.stop();
    for (const dir of [this.data_dir, ...Object.values(this.apps)])
      await rm(dir, { recursive: true, force: true });
  }

  /** One for each app: what is live in more of them would only be started again after every kill. */
  async deployment(app: App): Promise<Json> {
    const made = this.#deployments.get(app) ?? (await this.kiln.deployment(`killed-${app}`));
    this.#deployments.set(app, made);
    return made;
  }

  /** Starts a publish that takes a moment in every stage. */
  async begin(app: App): Promise<Json> {
    const { id: deployment_id } = await this.deployment(app);
    const sandbox_id = await this.kiln.sandboxFrom(this.apps[app]);
    const build = app === 'static' ? { build_command: 'sleep 0.3', output_path: '.' } : { grace_ms: 400 };
    const { version } = await this.kiln.publish(null, {
      sandbox_id,
      deployment_id,
      wait: 0,
      reuse: false,
      ...build,
    });
    return version;
  }

  /** Kills, restarts, and waits until every unfinished version has ended. */
  async crash(): Promise<void> {
    await this.kiln.kill();
    this.kiln = await startKilnProcess(this.data_dir);
    const deployments = await this.kiln.ask('GET', '/deployments?limit=200');
    for (const { id } of deployments)
      for (const version of await this.kiln.ask('GET', `/deployments/${id}/versions?limit=200`))
        if (['created', 'building'].includes(version.state))
          await this.kiln.settled(id, version.id, SETTLED_WITHIN_MS);
  }

  /** Stops the engine, looks at everything that it and those before it left, and starts it again. */
  async check(): Promise<void> {
    assert.equal(await this.kiln.stop(), 0);
    assert.deepEqual(await walk(this.data_dir), []);
    this.kiln = await startKilnProcess(this.data_dir);
  }

  /** `count` kills while an app of each kind is published, at any time from the first moment to the end. */
  async atRandomInstants(count: number): Promise<void> {
    const apps: App[] = ['static', 'dynamic'];
    for (let n = 0; n < count; n++) {
      const versions = await Promise.all(apps.map((app) => this.begin(app)));
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 1500));
      await this.crash();
      for (const [at, version] of versions.entries()) {
        const ended = await this.kiln.version((await this.deployment(apps[at]!)).id, version.id);
        assert.ok(['ready', 'archived'].includes(ended.state), JSON.stringify(ended.failure));
      }
      if (n % 4 === 3) await this.check();
    }
    // Also when it had nothing to do.
    await this.crash();
    await this.check();
  }
}

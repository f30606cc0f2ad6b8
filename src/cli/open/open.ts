import { spawn } from 'node:child_process';
import type { Command } from 'commander';
import { type Bind, type Cli, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { findDeployment } from '../find.ts';

export function define(command: Command, bind: Bind): void {
  command
    .description('Print the URL of a deployment, and open it in a browser where there is a display.')
    .argument('<name>', 'deployment');
  examples(command, [
    ['kiln open shop', 'print the URL and open it'],
    ['curl $(kiln open shop)', 'in a script only the URL is printed'],
  ]);
  command.action(
    bind(async (cli, name: string) => {
      const deployment = await findDeployment(await cli.connect(), name);
      const url = deployment.public_url;
      const opened = openBrowser(cli, url);
      cli.out.result({ url, opened, live: deployment.active_version_id !== null }, () => cli.out.line(url));
      if (deployment.active_version_id === null) cli.out.note('Nothing is live there yet.');
      return EXIT.ok;
    }),
  );
}

/** Only for a person at a display. The URL is the engine's, but it is checked all the same: it becomes an argument. */
function openBrowser(cli: Cli, url: string): boolean {
  const display = process.platform === 'darwin' || Boolean(cli.env.DISPLAY || cli.env.WAYLAND_DISPLAY);
  if (!display || cli.out.json || cli.out.stdout.isTTY !== true || !/^https?:\/\//.test(url)) return false;
  const browser = spawn(process.platform === 'darwin' ? 'open' : 'xdg-open', [url], {
    stdio: 'ignore',
    detached: true,
  });
  browser.on('error', () => {});
  browser.unref();
  return true;
}

#!/usr/bin/env node
// The `kiln` command for any Node from 20 on: runs src/main.ts with the Node 24 that is installed beside it (the npm
// package `node`), unless this one is new enough. Arguments, terminal, signals and the exit code pass through.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const NEEDED_MAJOR = 24;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGCONT'];
const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');

if (Number(process.versions.node.split('.')[0]) >= NEEDED_MAJOR) {
  await import('./run.mjs');
} else {
  runWith(findNode());
}

/** The binary itself, not the link in .bin: that one is a script on some systems. */
function findNode() {
  const name = process.platform === 'win32' ? 'node.exe' : 'node';
  const beside = [
    path.join(root, 'node_modules', 'node', 'bin', name),
    path.join(root, 'node_modules', '.bin', name),
  ];
  try {
    const manifest = createRequire(path.join(root, 'package.json')).resolve('node/package.json');
    beside.push(path.join(path.dirname(manifest), 'bin', name));
  } catch {
    // Not installed; told below.
  }
  const found = beside.find((file) => existsSync(file));
  if (found) return found;
  console.error(
    `kiln needs Node ${NEEDED_MAJOR} and this is ${process.version}. Its own Node is not installed yet: run \`node scripts/install.mjs\` in ${root}, or install Node ${NEEDED_MAJOR}.`,
  );
  process.exit(2);
}

function runWith(node) {
  const child = spawn(node, [path.join(root, 'bin', 'run.mjs'), ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  // Ctrl-C reaches the whole terminal group, so the child has that one already; other signals come to us alone.
  for (const signal of SIGNALS)
    process.on(signal, () => {
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    });
  child.on('error', (error) => {
    console.error(`kiln could not start ${node}: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    // Ended by a signal: end the same way, so that the shell sees it.
    for (const one of SIGNALS) process.removeAllListeners(one);
    process.kill(process.pid, signal);
  });
}

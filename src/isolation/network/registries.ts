/**
 * Public package registries and what they download from, by ecosystem: what a build may reach under the policy
 * `registries` without anybody naming it. Hosts of plain files (object stores, code hosting) are left out, save
 * where a package manager cannot do without: whoever can upload to a host can be sent things through it.
 */
export const PUBLIC_REGISTRIES: readonly string[] = [
  // npm, yarn, pnpm; Node's own headers (node-gyp) and versions (corepack, nvm)
  ...['registry.npmjs.org', 'registry.yarnpkg.com', 'repo.yarnpkg.com', 'nodejs.org', 'npm.jsr.io', 'jsr.io'],
  ...['deno.land', 'esm.sh', 'binaries.prisma.sh'],
  // Python
  ...['pypi.org', 'files.pythonhosted.org', 'install.python-poetry.org', 'pypi.python.org'],
  // Go
  ...['proxy.golang.org', 'sum.golang.org', 'go.dev', 'dl.google.com'],
  // Rust
  ...['crates.io', 'index.crates.io', 'static.crates.io', 'static.rust-lang.org', 'sh.rustup.rs'],
  // Java, Kotlin, Scala
  ...['repo.maven.apache.org', 'repo1.maven.org', 'plugins.gradle.org', 'plugins-artifacts.gradle.org'],
  ...['services.gradle.org', 'downloads.gradle.org', 'maven.google.com', 'dl.google.com'],
  // Ruby, PHP
  ...['rubygems.org', 'index.rubygems.org', 'packagist.org', 'repo.packagist.org', 'getcomposer.org'],
  // GitHub's archives: Composer and SwiftPM download packages from nowhere else.
  ...['codeload.github.com', 'api.github.com'],
  // Elixir, Erlang
  ...['hex.pm', 'repo.hex.pm', 'builds.hex.pm'],
  // .NET
  ...['api.nuget.org', 'www.nuget.org', 'globalcdn.nuget.org'],
  // Debian, Ubuntu, Alpine
  ...['deb.debian.org', 'security.debian.org', 'snapshot.debian.org', 'archive.ubuntu.com'],
  ...['security.ubuntu.com', 'ports.ubuntu.com', 'dl-cdn.alpinelinux.org', 'deb.nodesource.com'],
  // Container images
  ...['registry-1.docker.io', 'auth.docker.io', 'index.docker.io', 'production.cloudflare.docker.com'],
  ...['production.cloudfront.docker.com', 'ghcr.io', 'pkg-containers.githubusercontent.com'],
  ...['quay.io', 'cdn.quay.io', 'cdn01.quay.io', 'cdn02.quay.io', 'cdn03.quay.io', 'gcr.io', 'mirror.gcr.io'],
];

#!/bin/sh
# Debian packages that `npm run test:system` needs; the languages build fixture apps of their ecosystems. Idempotent; says what it installs.
set -eu
# What for: machines and images; databases and load; the languages of fixture apps.
want="bubblewrap qemu-system-x86 docker.io tini iptables e2fsprogs squashfs-tools squashfs-tools-ng mmdebstrap cpio busybox-static kmod zstd socat
  skopeo umoci docker-registry openssl
  postgresql wrk
  ruby ruby-bundler php-cli composer elixir"
missing=""
for package in $want; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -z "$missing" ]; then
  echo "system-deps: everything is installed ($want)"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "system-deps: these Debian packages are missing:$missing" >&2
  echo "system-deps: install them as root: apt-get install$missing" >&2
  exit 1
fi
echo "system-deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
echo "system-deps: done"

#!/bin/sh
# Debian packages that `npm run test:system` needs. Idempotent; says what it installs.
set -eu
want="bubblewrap postgresql wrk squashfs-tools squashfs-tools-ng skopeo umoci docker-registry qemu-system-x86 mmdebstrap e2fsprogs socat"
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

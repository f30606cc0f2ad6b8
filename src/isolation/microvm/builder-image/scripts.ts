/** Shell that mmdebstrap runs on the new root (`$1`) from outside, once all packages are in. */

/**
 * The kernel and the static shell, downloaded beside the root by the same apt with the same sources, and the list of
 * packages. The kernel is not installed: its scripts would make an initramfs of their own, and the root is no place
 * for it.
 */
export const FETCH_SCRIPT = `#!/bin/sh
set -eu
root=$1
export LC_ALL=C APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir "$root/kiln-boot"
cd "$root/kiln-boot"
kernel=$(apt-cache depends "$KERNEL_PACKAGE" | sed -n 's/^ *Depends: \\(linux-image-[0-9][^ ]*\\)$/\\1/p' | head -n 1)
[ -n "$kernel" ] || { echo "E: no kernel behind $KERNEL_PACKAGE" >&2; exit 1; }
apt-get download -qq "$kernel" "$BUSYBOX_PACKAGE"
dpkg-query --admindir="$root/var/lib/dpkg" -W -f '\${Package} \${Version}\\n' > packages.txt
for deb in *.deb; do dpkg-deb -W --showformat='boot:\${Package} \${Version}\\n' "$deb"; done >> packages.txt
`;

/**
 * Accounts and folders of machines, and everything out that says when, where or by whom the image was made, or that
 * tools make again: logs, caches, ids, compiled Python (it holds times), manuals.
 */
export const CLEAN_SCRIPT = `#!/bin/sh
set -eu
root=$1
rm -rf "$root/kiln-boot"
echo 'app:x:1000:1000:app:/home:/bin/sh' >> "$root/etc/passwd"
echo 'app:x:1000:' >> "$root/etc/group"
mkdir -p "$root/workspace" "$root/home" "$root/cache"
chown 1000:1000 "$root/workspace" "$root/home" "$root/cache"
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/sources.list
echo 'deb http://deb.debian.org/debian bookworm main' > "$root/etc/apt/sources.list"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/tmp/* "$root"/run/* "$root"/root/.[a-z]*
rm -f "$root"/etc/hostname "$root"/etc/resolv.conf "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow-
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/var/lib/systemd/random-seed
rm -f "$root"/var/lib/dpkg/*-old "$root"/var/lib/dpkg/lock* "$root"/etc/.pwd.lock
: > "$root/etc/machine-id"
rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/lintian
find "$root/usr/share/doc" -type f ! -name copyright -delete 2>/dev/null || true
find "$root" -xdev -type d -name __pycache__ -prune -exec rm -rf {} +
printf '127.0.0.1 localhost\\n::1 localhost\\n' > "$root/etc/hosts"
`;

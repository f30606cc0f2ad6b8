#!/bin/busybox sh
# Becomes the command: in its control group, without rights, in the job's root, on pipes that have no name any more.
# Arguments: group uid gid kind. What is only bound to the image's root by chroot leaves it again when it is root itself,
# so an instance gets mounts of its own of which the image is the root, and a limit on what root may do (guard.ts).
# Builds that run as root (of Dockerfiles) need all of it, and have no network but their proxy, which QEMU holds.
export PATH=/bin
(
  read -r self _ < /proc/self/stat
  echo "$self" > "$1/cgroup.procs"
  exec > /pipes/stdout 2> /pipes/stderr
  rm -f /pipes/stdout /pipes/stderr
  ulimit -c 0
  umask 022
  set -- "$1" "$4" chroot . /dev/.kiln/busybox setpriv --nnp /dev/.kiln/busybox start-stop-daemon -S -q \
    -p /dev/.kiln/none -c "$2:$3" -x /dev/.kiln/busybox -a sh -- /dev/.kiln/run
  cd /image
  if [ "$2" = image ]; then
    exec unshare -m /bin/sh -c 'mount --move . / && group=$1 && shift 2 && exec /guard "$group" /bin/busybox "$@"' sh "$@"
  fi
  shift 2
  exec "$@"
)
echo $? > /exit.tmp
mv /exit.tmp /exit

#!/bin/busybox sh
# Becomes the command: in its control group, without rights, in the job's root, on pipes that have no name any more.
# Arguments: group uid gid.
export PATH=/bin
(
  read -r self _ < /proc/self/stat
  echo "$self" > "$1/cgroup.procs"
  exec > /pipes/stdout 2> /pipes/stderr
  rm -f /pipes/stdout /pipes/stderr
  ulimit -c 0
  umask 022
  exec chroot /image /dev/.kiln/busybox setpriv --nnp /dev/.kiln/busybox start-stop-daemon -S -q \
    -p /dev/.kiln/none -c "$2:$3" -x /dev/.kiln/busybox -a sh -- /dev/.kiln/run
)
echo $? > /exit.tmp
mv /exit.tmp /exit

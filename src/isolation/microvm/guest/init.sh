#!/bin/busybox sh
# The guest agent: first process of a VM. Mounts, runs one job as somebody without rights, tells the host how it goes,
# and brings the result out. It listens on no network. What it says are JSON lines on the control channel
# (protocol.ts); what it hears: `go`, `term`, `ports`, `usage`, `done`. As process 1 it dies of no signal, and ignores
# none, which the command would inherit. Shell, because a static busybox starts in any image.
export PATH=/bin
/bin/busybox --install -s /bin

say() { printf '%s\n' "$1" >&3; }
# Nobody can repair a guest from inside: say where it broke, and end. The panic is what the hypervisor ends by.
broken() {
  say "{\"event\":\"broken\",\"step\":\"$1\"}" 2>/dev/null
  echo "kiln: $1" > /dev/console
  sleep 1
  exit 1
}

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" 2>/dev/null; done < /modules/order

# Settings from the kernel's command line: kiln.drives=root,input,… kiln.channels=virtio-serial kiln.names=serial
for word in $(cat /proc/cmdline); do
  case $word in
    kiln.drives=*) drives=${word#*=} ;;
    kiln.names=*) names=${word#*=} ;;
    kiln.channels=*) channels=${word#*=} ;;
  esac
done

# Devices may appear a moment after their driver.
channel() {
  tries=0
  while [ $tries -lt 100 ]; do
    for port in /sys/class/virtio-ports/*; do
      [ "$(cat "$port/name" 2>/dev/null)" = "kiln.$1" ] && echo "/dev/${port##*/}" && return
    done
    usleep 50000
    tries=$((tries + 1))
  done
}
[ "$channels" = virtio-serial ] || { [ -x /hypervisor.sh ] && . /hypervisor.sh; }
control=$(channel control)
exec 3<>"$control" || broken 'the control channel is missing'

drive() {
  if [ "$names" = serial ]; then
    for disk in /sys/block/vd*; do
      [ "$(cat "$disk/serial" 2>/dev/null)" = "$1" ] && echo "/dev/${disk##*/}" && return
    done
    return
  fi
  letter=a
  for name in $(echo "$drives" | tr , ' '); do
    [ "$name" = "$1" ] && echo "/dev/vd$letter" && return
    letter=$(echo "$letter" | tr a-y b-z)
  done
}

sysctls() {
  echo 1 > /proc/sys/kernel/dmesg_restrict
  echo 2 > /proc/sys/kernel/kptr_restrict
  echo 0 > /proc/sys/user/max_user_namespaces
  echo 1 > /proc/sys/kernel/unknown_nmi_panic
  echo 0 > /proc/sys/vm/oom_kill_allocating_task
  echo 1 > /proc/sys/kernel/unprivileged_bpf_disabled
}
sysctls 2>/dev/null

# Bottom first; each lies over those before it (root, root2, …), as overlayfs lists them from the top.
lowers=
for name in $(echo "$drives" | tr , ' '); do
  case $name in root*) ;; *) continue ;; esac
  lower=/lower${name#root}
  mkdir -p "$lower"
  mount -t squashfs -o ro "$(drive "$name")" "$lower" || broken 'the root file system cannot be mounted'
  lowers=$lower${lowers:+:$lowers}
done
mount -t ext4 -o noatime,noinit_itable "$(drive scratch)" /scratch || broken 'the scratch disk cannot be mounted'
mkdir -p /scratch/upper /scratch/work /scratch/job /image
mount -t overlay -o nodev,lowerdir=$lowers,upperdir=/scratch/upper,workdir=/scratch/work overlay /image || broken 'the overlay cannot be mounted'
mkdir -p /image/proc /image/dev /image/run /image/tmp /image/sys
mount -t proc -o nosuid,nodev,noexec proc /image/proc
mount -t tmpfs -o nosuid,mode=755,size=64k dev /image/dev
mount -t tmpfs -o nosuid,nodev,mode=755,size=16m run /image/run
node() { mknod -m 666 "/image/dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
mkdir /image/dev/pts /image/dev/shm /image/dev/.kiln
mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=666,mode=620,gid=5 devpts /image/dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 shm /image/dev/shm
ln -s pts/ptmx /image/dev/ptmx
ln -s /proc/self/fd /image/dev/fd
ln -s /proc/self/fd/0 /image/dev/stdin
ln -s /proc/self/fd/1 /image/dev/stdout
ln -s /proc/self/fd/2 /image/dev/stderr
# The shell that becomes the command: images need not have one.
touch /image/dev/.kiln/busybox
mount --bind /bin/busybox /image/dev/.kiln/busybox
mount -o remount,bind,ro /image/dev/.kiln/busybox
mount -t cgroup2 none /sys/fs/cgroup || broken 'control groups are missing'
echo '+memory +pids +cpu' > /sys/fs/cgroup/cgroup.subtree_control
group=/sys/fs/cgroup/job
mkdir $group
ip link set lo up

# Everything above is the same for every job: a warm VM waits here.
say '{"event":"booted"}'
read -r line <&3
[ "$line" = go ] || broken "expected go, got something else"

input=$(drive input)
blockdev --flushbufs "$input"
tar -x -f "$input" -C /scratch || broken 'the input cannot be unpacked'
. /scratch/job/config
mv /scratch/job /job
. /steps.sh
prepare
start_command
follow_command
finish

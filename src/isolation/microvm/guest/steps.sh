# What the agent does once it has a job. /job/config set: kind uid gid image_user network processes memory_bytes
# disk_bytes log_bytes read_only_root use_cache host_name; /job/run is the command, /job/home and /job/files go where their names say.

used_blocks() { set -- $(stat -f -c '%b %f %S' /scratch); used=$((($1 - $2) * $3)); avail=$(($2 * $3)); }

# HOME=/home: in an image that has home folders the job's own would hide them.
prepare() {
  [ "$kind" = image ] && mkdir -p /image/etc
  mkdir -p /scratch/workspace /scratch/home /scratch/tmp
  chmod 1777 /scratch/tmp
  mount --bind /scratch/tmp /image/tmp
  [ -d /job/files ] && cp -R /job/files/. /image/
  if [ "$kind" = image ]; then
    image_user
  else
    mkdir -p /image/workspace /image/home
    [ -d /job/home ] && cp -R /job/home/. /scratch/home/
    chown -hR "$uid:$gid" /scratch/workspace /scratch/home
    mount --bind /scratch/workspace /image/workspace
    mount --bind /scratch/home /image/home
    mount_cache
  fi
  [ "$kind" = image ] && protect_kernel
  network
  echo "${host_name:-kiln}" > /proc/sys/kernel/hostname
  printf '127.0.0.1 localhost %s\n::1 localhost\n' "${host_name:-kiln}" > /image/etc/hosts
  cp /job/run /image/dev/.kiln/run
  chmod 755 /image/dev/.kiln/run
  mount -o remount,ro,nosuid,mode=755 /image/dev
  # With the lower group killed as a whole, a build never goes on with half of its processes.
  echo "$memory_bytes" > $group/memory.max
  echo 0 > $group/memory.swap.max 2>/dev/null
  echo 1 > $group/memory.oom.group
  # Counts threads, of which a Node process has about 11; processes are counted below.
  echo $((processes * 16 + 64)) > $group/pids.max
  [ "$read_only_root" = 1 ] && mount -o remount,ro /image
  sync
  used_blocks
  used_before=$used
}

# Files of the kernel that belong to root, which needs no capability for them: some name a program that the kernel runs.
protect_kernel() {
  for path in sys bus fs irq acpi scsi mtrr; do
    [ -e "/image/proc/$path" ] || continue
    mount --bind "/image/proc/$path" "/image/proc/$path"
    mount -o remount,bind,ro "/image/proc/$path"
  done
  # Without the right to make packets, ping asks the kernel to.
  echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range
}

# `User` of an image: name or number, with or without a group; looked up in the image's own accounts.
image_user() {
  who=${image_user%%:*}
  export KILN_HOME=/
  gid=0
  uid=$who
  while IFS=: read -r name _ number group_number _ home _; do
    if [ "$name" = "$who" ] || [ "$number" = "$who" ]; then
      uid=$number
      gid=$group_number
      export KILN_HOME=$home
      break
    fi
  done < /image/etc/passwd 2>/dev/null
  case $image_user in *:*)
    gid=${image_user#*:}
    while IFS=: read -r name _ number _; do
      [ "$name" = "$gid" ] && gid=$number && break
    done < /image/etc/group 2>/dev/null
  esac
  case $uid$gid in *[!0-9]*) broken 'the user of the image is not in its passwd file' ;; esac
  # What becomes the command looks the number up, and images need not have accounts at all.
  grep -q "^[^:]*:[^:]*:$uid:" /image/etc/passwd 2>/dev/null || echo "app:x:$uid:$gid::/:/bin/false" >> /image/etc/passwd
}

mount_cache() {
  [ "$use_cache" = 1 ] || return
  cache=$(drive cache)
  [ -n "$cache" ] || return
  # Filled after the kernel first looked at it, where the VM waited for the job.
  blockdev --flushbufs "$cache"
  mkdir -p /image/cache
  if ! mount -t ext4 -o noatime,nodev,nosuid,errors=remount-ro "$cache" /image/cache; then
    say '{"event":"cache","state":"broken"}'
    cache=
    return
  fi
  set -- $(stat -f -c '%b %f %S' /image/cache)
  state=kept
  # Nearly full: package managers evict nothing themselves, so everything goes at once.
  if [ $(($2 * 10)) -lt "$1" ]; then
    find /image/cache -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
    state=emptied
  fi
  rm -rf /image/cache/lost+found
  chown "$uid:$gid" /image/cache
  say "{\"event\":\"cache\",\"state\":\"$state\",\"used_bytes\":$((($1 - $2) * $3))}"
}

card() {
  for path in /sys/class/net/eth*; do
    [ "$(cat "$path/address" 2>/dev/null)" = "$1" ] && echo "${path##*/}" && return
  done
}

# Two cards, told apart by their addresses. On the first, whoever comes in through the forwarded port is answered,
# and the proxy of a build is there; QEMU lets nothing else through. On the second is the world.
network() {
  [ "$network" != none ] || return
  inside=$(card 52:54:00:6b:00:01)
  ip addr add 10.0.2.15/24 dev "$inside"
  ip link set "$inside" up
  [ "$network" = outbound ] || return
  outside=$(card 52:54:00:6b:00:02)
  ip addr add 10.0.3.15/24 dev "$outside"
  ip link set "$outside" up
  # The gateway is also the host's loopback: only what lies behind it may be reached, and no metadata service. Routes say
  # so at once; what goes around them is dropped by the filter of the job's group (guard.ts).
  ip route add default via 10.0.3.2 dev "$outside" onlink
  ip route add prohibit 10.0.3.2/32
  ip route add prohibit 10.0.3.4/32
  ip route add prohibit 169.254.0.0/16
  rm -f /image/etc/resolv.conf
  echo 'nameserver 10.0.3.3' > /image/etc/resolv.conf
}

# Pipes, so that /dev/stdout can be opened; counted, so that the host knows when it has everything.
start_command() {
  mkdir /pipes
  for name in stdout stderr; do
    mkfifo -m 600 "/pipes/$name"
    chown "$uid:$gid" "/pipes/$name"
    port=$(channel $name)
    { limited < "/pipes/$name" | tee "$port" | wc -c > "/pipes/$name.count"; } 3>&- &
    eval "copy_$name=$!"
  done
  /run_command.sh "$group" "$uid" "$gid" "$kind" 3>&- < /dev/null &
  say '{"event":"started"}'
}

# Where nobody may be reading, what the host keeps has an end; the command still never waits.
limited() {
  [ "$log_bytes" = 0 ] && exec cat
  dd bs=65536 "count=$log_bytes" iflag=count_bytes status=none
  exec cat > /dev/null
}

sample() {
  memory=0
  while read -r key value; do
    case $key in
      anon | shmem) memory=$((memory + value)) ;;
      file_mapped) break ;;
    esac
  done < $group/memory.stat
  tasks=0
  while read -r _; do tasks=$((tasks + 1)); done < $group/cgroup.procs
  read -r _ cpu < $group/cpu.stat
  [ $memory -gt $peak_memory ] && peak_memory=$memory
  [ $tasks -gt $peak_tasks ] && peak_tasks=$tasks
  [ $tasks -gt "$processes" ] && reason=too_many_processes
  read -r _ denied < $group/pids.events
  [ "$denied" = 0 ] || reason=too_many_processes
  while read -r key value; do [ $key = oom_kill ] && [ "$value" != 0 ] && reason=out_of_memory; done < $group/memory.events
}

measure_disk() {
  used_blocks
  disk=$((used - used_before))
  [ $disk -gt $peak_disk ] && peak_disk=$disk
  if [ $disk -gt "$disk_bytes" ] || [ $avail -lt 65536 ]; then reason=out_of_disk; fi
}

beat() {
  say "{\"event\":\"beat\",\"memory_bytes\":$memory,\"processes\":$tasks,\"cpu_us\":$cpu,\"disk_bytes\":$disk}"
}

listening() {
  rows=$(awk '$4 == "0A" { printf "%s\"%s\"", comma, $2; comma = "," }' /proc/net/tcp /proc/net/tcp6)
  say "{\"event\":\"ports\",\"rows\":[$rows]}"
}

# Said again until it was heard, and meant once: a second signal ends many servers at once.
terminate() {
  [ -z "$terminated" ] || return
  terminated=1
  while read -r pid; do kill -TERM "$pid" 2>/dev/null; done < $group/cgroup.procs
}

# One loop hears the host, samples, and notices the end. 100 ms a turn; the disk and the sign of life every tenth.
follow_command() {
  reason=exited peak_memory=0 peak_tasks=0 peak_disk=0 disk=0 cpu=0 turn=0 terminated=
  while [ $reason = exited ]; do
    if read -t 0.1 -r line <&3; then
      case $line in
        ports) listening ;;
        usage) sample; beat ;;
        term) terminate ;;
      esac
    fi
    sample
    # After a request to stop, the others have their time as well when the main process goes at once.
    if [ -e /exit ] && { [ -z "$terminated" ] || [ $tasks = 0 ]; }; then break; fi
    turn=$((turn + 1))
    if [ $((turn % 5)) = 0 ]; then measure_disk; fi
    if [ $((turn % 10)) = 1 ]; then beat; fi
  done
  [ $reason != exited ] && say "{\"event\":\"limit\",\"reason\":\"$reason\"}"
  echo 1 > $group/cgroup.kill
  [ $reason != exited ] || { sample_end; measure_disk; }
}

# The group's own counters know what happened between two samples.
sample_end() {
  while read -r key value; do [ $key = oom_kill ] && [ "$value" != 0 ] && reason=out_of_memory; done < $group/memory.events
  read -r _ denied < $group/pids.events
  [ "$denied" = 0 ] || reason=too_many_processes
  read -r _ cpu < $group/cpu.stat
}

finish() {
  tries=0
  while [ ! -e /exit ] && [ $tries -lt 100 ]; do usleep 20000; tries=$((tries + 1)); done
  code=$(cat /exit 2>/dev/null || echo 137)
  wait "$copy_stdout" "$copy_stderr"
  out=$(cat /pipes/stdout.count)
  err=$(cat /pipes/stderr.count)
  say "{\"event\":\"over\",\"reason\":\"$reason\",\"code\":$code,\"stdout_bytes\":${out:-0},\"stderr_bytes\":${err:-0},\"memory_bytes\":$peak_memory,\"processes\":$peak_tasks,\"cpu_us\":$cpu,\"disk_bytes\":$peak_disk}"
  [ -n "$cache" ] && umount /image/cache
  if [ "$kind" = workspace ]; then
    # A full disk, a sparse file larger than the output drive: the host is told, and takes nothing.
    failed=0
    written=$(tar -c -f - -C /scratch/workspace . | tee "$(drive output)" 2>/output.errors | wc -c)
    [ -s /output.errors ] && failed=1
    say "{\"event\":\"output\",\"bytes\":${written:-0},\"failed\":$failed}"
  fi
  sync
  say '{"event":"done"}'
  # The host ends the VM; without a host (an instance whose engine is gone) it ends by itself.
  read -t 5 -r line <&3
  poweroff -f
}

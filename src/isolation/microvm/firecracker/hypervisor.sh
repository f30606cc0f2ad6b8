# The guest's side of Firecracker's devices; the agent (init.sh) reads it once its modules are loaded. Channels, the
# way to the proxy and the app's port are vsock connections, carried by the socat of this archive (relay.ts).
# kiln.vsock_cid is for tests: where the host is, if not at 2.

relay() { /relay/ld.so --library-path /relay /relay/socat "$@"; }
host=2
for word in $(cat /proc/cmdline); do
  case $word in
    kiln.vsock_cid=*) host=${word#*=} ;;
    kiln.vsock_egress=*) egress=${word#*=} ;;
    kiln.vsock_forward=*) forward=${word#*=} ;;
  esac
done

# A terminal that stays while connections come and go: the engine may be restarted, the VM restored from a snapshot.
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
cat > /relay/control <<END
#!/bin/busybox sh
while :; do
  /relay/ld.so --library-path /relay /relay/socat - VSOCK-CONNECT:$host:1
  /bin/busybox usleep 100000
done
END
chmod 755 /relay/control
relay PTY,link=/dev/kiln.control,rawer EXEC:/relay/control < /dev/null > /dev/null 2>&1 &

# Opened for reading and writing: not ended by whoever writes, and connected before anybody does.
for name in stdout stderr; do
  mkfifo -m 600 /dev/kiln.$name
  port=2
  [ $name = stdout ] || port=3
  while :; do
    relay -U VSOCK-CONNECT:$host:$port OPEN:/dev/kiln.$name,rdwr
    usleep 100000
  done < /dev/null > /dev/null 2>&1 &
done

ip link set lo up
if [ -n "$egress" ]; then
  relay TCP4-LISTEN:$egress,bind=127.0.0.1,reuseaddr,fork,max-children=256 VSOCK-CONNECT:$host:$egress < /dev/null > /dev/null 2>&1 &
fi
if [ -n "$forward" ]; then
  relay VSOCK-LISTEN:$forward,reuseaddr,fork,max-children=512 TCP4:127.0.0.1:$forward < /dev/null > /dev/null 2>&1 &
fi

channel() {
  tries=0
  while [ $tries -lt 100 ] && ! [ -e "/dev/kiln.$1" ]; do
    usleep 50000
    tries=$((tries + 1))
  done
  [ -e "/dev/kiln.$1" ] && echo "/dev/kiln.$1"
}

# Firecracker has no power switch; a reset ends it.
poweroff() { reboot -f; }

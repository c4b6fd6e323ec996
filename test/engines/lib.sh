# Sourced by every test here: an image made offline, of busybox alone.
. "$(dirname "$0")/../programs/lib.sh"
# make_rootfs DIRECTORY
make_rootfs() {
  mkdir -p "$1"/{bin,etc,tmp,proc,sys,dev,run,root,var/tmp}
  chmod 1777 "$1/tmp" "$1/var/tmp"
  cp /bin/busybox "$1/bin/"
  local name
  for name in $("$1/bin/busybox" --list); do [ "$name" = busybox ] || ln -s busybox "$1/bin/$name"; done
  printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:7:8:user:/tmp:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\nusers:x:8:\n' >"$1/etc/group"
}
# Waits for a condition.
await() {
  for _ in $(seq 200); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.05
  done
  return 1
}

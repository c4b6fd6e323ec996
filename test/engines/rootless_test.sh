#!/usr/bin/env bash
# podman as an ordinary user, with the one ID that he has.
. "$(dirname "$0")/lib.sh"
# Short: podman puts sockets below it.
STORE=$(mktemp -d /tmp/rdusr.XXXX)
chmod 755 "$STORE"
mkdir -p "$STORE/home" "$STORE/xdg"
cp "$RUNSC" "$STORE/runsc"
cat >"$STORE/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runsc"
[engine.runtimes]
runsc = ["$STORE/runsc"]
CONF
make_rootfs "$STORE/home/rootfs"
chown -R 12345:12345 "$STORE/home" "$STORE/xdg"
cd "$STORE/home"
podman() {
  timeout "${LIMIT:-60}" setpriv --reuid 12345 --regid 12345 --clear-groups env HOME="$STORE/home" XDG_RUNTIME_DIR="$STORE/xdg" \
    CONTAINERS_CONF="$STORE/containers.conf" /usr/bin/podman --log-level=fatal --storage-driver=vfs "$@"
}
# The process that keeps podman's user namespace would stay.
cleanup() {
  podman rm --all --force --time 0 >/dev/null 2>&1
  local pause
  pause=$(cat "$STORE/xdg/libpod/tmp/pause.pid" 2>/dev/null) && kill "$pause"
  rm -rf "$STORE" "$SCRATCH"
}
trap cleanup EXIT

out=$(podman run --rm --rootfs "$STORE/home/rootfs" /bin/sh -c 'echo $$ $(id -u); echo x > /made; exit 7' 2>"$SCRATCH/err")
same "run: code" 7 $?
same "run: first process, and root" "1 0" "$out"
same "root's file is the user's" "12345 x" "$(stat -c %u rootfs/made) $(cat rootfs/made)"
podman run --detach --name c --rootfs "$STORE/home/rootfs" /bin/sh -c 'while :; do sleep 0.1; done' >/dev/null 2>"$SCRATCH/err" || fail "run --detach: $(cat "$SCRATCH/err")"
same "exec" inside "$(podman exec c echo inside 2>&1)"
podman rm --force --time 0 c >/dev/null 2>&1 || fail "rm"
same "nothing runs" "" "$(podman ps -q 2>/dev/null)"
finish

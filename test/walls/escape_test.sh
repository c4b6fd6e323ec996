#!/usr/bin/env bash
# Escapes that other runtimes have known, tried again: each must fail here, and what lies outside must stay as it is.
. "$(dirname "$0")/../programs/lib.sh"
ROOT=$SCRATCH/root
BUNDLE=$SCRATCH/bundle
OUTSIDE=$SCRATCH/outside
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
trap 'for c in $("$RUNSC" --root "$ROOT" list -q); do "$RUNSC" --root "$ROOT" delete --force "$c"; done; kill $(jobs -p) 2>/dev/null; rm -rf "$SCRATCH"' EXIT
mkdir -p "$BUNDLE/rootfs/bin" "$BUNDLE/rootfs/etc" "$BUNDLE/rootfs/spin/d" "$OUTSIDE" "$SCRATCH/volume"
R=$BUNDLE/rootfs
cp /bin/busybox "$R/bin/busybox"
for name in sh cat echo sleep ls id stat mount nc dd readlink; do ln -s busybox "$R/bin/$name"; done
gcc -O1 -static -pthread -o "$R/bin/racer" "$(dirname "$0")/racer.c" || exit 1
for i in $(seq 0 199); do
  echo inside >"$R/spin/d/x$i"
  echo "canary $i" >"$OUTSIDE/x$i"
done
echo a >"$R/spin/d/a"
echo "canary a" >"$OUTSIDE/a"
chmod 0644 "$OUTSIDE"/*
outside() { (cd "$OUTSIDE" && stat -c '%n %a %s %Y %U' -- * && cat -- *) | sha256sum; }
untouched=$(outside)
safe() { same "$1: what lies outside" "$untouched" "$(outside)"; }
# config COMMAND...: the bundle's configuration, changed by $EDIT (Python, on `c`; mount() adds one).
config() {
  rm -f "$BUNDLE/config.json"
  "$RUNSC" spec --bundle "$BUNDLE" -- "$@" || fail "spec"
  python3 - "$BUNDLE/config.json" "$SCRATCH" <<PY
import json, sys
c = json.load(open(sys.argv[1]))
S = sys.argv[2]
c["root"]["readonly"] = False
c["process"]["capabilities"] = {k: ["CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_MKNOD"] for k in ["bounding", "effective", "permitted"]}
def mount(destination, type, source, *options):
    c["mounts"].append({"destination": destination, "type": type, "source": source, "options": list(options)})
${EDIT:-}
json.dump(c, open(sys.argv[1], "w"))
PY
}
run() { runsc run --bundle "$BUNDLE" e </dev/null 2>&1; }

# --- symbolic links and renames in a race with the gofer
for link in "$OUTSIDE" ../../outside ../../../../../../../../../../../../../../../../"$OUTSIDE"; do
  rm -f "$R/spin/l" "$SCRATCH/stop"
  ln -s "$link" "$R/spin/l"
  python3 "$(dirname "$0")/swapper.py" "$R/spin/d" "$R/spin/l" "$SCRATCH/stop" >"$SCRATCH/swaps" &
  swapper=$!
  config racer swaps 2
  same "swapped for $link" "swaps: enough" "$(run)"
  touch "$SCRATCH/stop"
  wait $swapper
  [ "$(cat "$SCRATCH/swaps")" -gt 200 ] || fail "too few swaps: $(cat "$SCRATCH/swaps")"
  [ -L "$R/spin/d" ] && mv "$R/spin/d" "$R/spin/t" && mv "$R/spin/l" "$R/spin/d" && rm "$R/spin/t"
  safe "swapped for $link"
done
rm -f "$R/spin/l"

# --- memory that changes between the check and the use
echo public >"$R/public"
echo secret >"$R/secret"
chmod 0600 "$R/secret"
echo 'not a program' >"$R/bin/nopes"
config racer memory 0
same "memory that changes" $'paths: both\nprograms: whole\ndone' "$(run)"

# --- leaked directories: the working directory of create and exec (CVE-2024-21626), and what there is in /proc/self/fd
config sleep 1000
runsc run --detach --bundle "$BUNDLE" e </dev/null >/dev/null 2>&1 || fail "run --detach"
for n in $(seq 0 12); do
  said=$(runsc exec --cwd "/proc/self/fd/$n" e readlink /proc/self/cwd 2>&1) && fail "exec --cwd /proc/self/fd/$n: $said"
  said=$(runsc exec --cwd "/proc/self/fd/$n/../../../.." e cat x0 2>&1) && fail "exec --cwd /proc/self/fd/$n/..: $said"
done
same "descriptors of an exec" "0 1 2 3" "$(echo $(runsc exec e ls /proc/self/fd))"
same "none of them is a directory of the host's" "" "$(runsc exec e sh -c 'for f in /proc/self/fd/*; do readlink $f; done; for f in /proc/1/fd/*; do readlink $f; done' | grep "$SCRATCH")"
runsc delete --force e
for n in 3 5 7 8 9; do
  EDIT="c['process']['cwd'] = '/proc/self/fd/$n'" config cat x0
  said=$(run) && fail "create in /proc/self/fd/$n: $said"
done
exec 7<"$OUTSIDE"
EDIT='c["process"]["cwd"] = "/proc/self/fd/7"' config cat x0
said=$(run) && fail "create in an inherited directory: $said"
exec 7<&-

# --- mounts onto symbolic links that lead out; masked and read-only paths through such (CVE-2021-30465, CVE-2023-27561)
ln -s "$OUTSIDE" "$R/absolute"
ln -s ../../outside "$R/relative"
ln -s "$OUTSIDE/x0" "$R/file"
echo volume >"$SCRATCH/volume/new"
for destination in /absolute /relative /absolute/below /relative/below /dev/../relative/below /../../../outside; do
  EDIT="mount('$destination', 'bind', S + '/volume', 'rbind', 'rw')" config sh -c 'echo x >/absolute/made; echo x >/relative/made; :'
  run >/dev/null
  EDIT="mount('$destination', 'tmpfs', 'tmpfs')" config sh -c 'echo x >/absolute/made; :'
  run >/dev/null
  safe "a mount onto $destination"
done
EDIT='mount("/file", "bind", S + "/volume/new", "bind"); c["linux"]["maskedPaths"] = ["/absolute", "/relative", "/absolute/x1", "/file"]; c["linux"]["readonlyPaths"] = ["/relative/x2"]' \
  config sh -c 'cat /absolute/x1 /relative/x2 /file; :'
run | grep canary && fail "a masked path leads out"
safe "masked paths"
# The place changes while mounts are made.
mkdir -p "$R/place"
rm -f "$R/other" "$SCRATCH/stop"
ln -s "$OUTSIDE" "$R/other"
python3 "$(dirname "$0")/swapper.py" "$R/place" "$R/other" "$SCRATCH/stop" >"$SCRATCH/swaps" &
for _ in $(seq 6); do
  EDIT='mount("/place/a/b", "bind", S + "/volume", "rbind", "rw"); mount("/place/c", "tmpfs", "tmpfs")' config cat /place/a/b/x0 /place/x1
  run | grep canary && fail "a mount whose place changes leads out"
done
touch "$SCRATCH/stop"
wait $!
safe "a mount whose place changes"
# A procfs in the image's own place of it.
rm -f "$R/proc" 2>/dev/null
rmdir "$R/proc" 2>/dev/null
ln -s "$OUTSIDE" "$R/proc"
config cat /proc/x0
run | grep canary && fail "/proc as a symbolic link leads out"
rm -f "$R/proc"
safe "/proc as a symbolic link"

# --- images with special files
mknod "$R/null" c 1 3
mknod "$R/mem" c 1 1
mknod "$R/kmsg" c 1 11
mknod "$R/disk" b "$(lsblk -rndo MAJ:MIN 2>/dev/null | head -1 | cut -d: -f1)" 0 2>/dev/null || mknod "$R/disk" b 254 0
mknod "$R/tun" c 10 200
mknod "$R/tty" c 5 0
mkfifo "$R/fifo"
chmod 0666 "$R/null" "$R/mem" "$R/kmsg" "$R/disk" "$R/tun" "$R/tty" "$R/fifo"
python3 -c 'import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1]); s.listen()
f = os.open(sys.argv[2], os.O_RDONLY | os.O_NONBLOCK)
print("ready", flush=True)
s.settimeout(20)
try: s.accept(); print("CONNECTED")
except TimeoutError: pass
except OSError: pass
try: print("FIFO", os.read(f, 10)) if os.read(f, 10) else None
except BlockingIOError: print("FIFO has a writer")' "$R/socket" "$R/fifo" >"$SCRATCH/heard" 2>&1 &
listener=$!
for _ in $(seq 100); do grep -q ready "$SCRATCH/heard" && break; sleep 0.05; done
chmod 0777 "$R/socket"
cat >"$R/special.sh" <<'S'
for f in mem kmsg disk tun; do cat /$f >/dev/null 2>&1 && echo "$f can be read"; done
echo x >/null && echo null
echo x | nc local:/socket 2>/dev/null && echo "connected to the host's socket"
(echo hello >/fifo) & sleep 0.3
S
config sh -c '. /special.sh; :'
same "special files" null "$(run)"
kill $listener
wait $listener 2>/dev/null
same "the host hears nothing" ready "$(cat "$SCRATCH/heard")"
mkdir "$R/suid"
cp "$R/bin/busybox" "$R/suid/id"
chown 0:0 "$R/suid/id"
chmod 4755 "$R/suid/id"
EDIT='c["process"]["user"] = {"uid": 1000, "gid": 1000}; c["process"]["noNewPrivileges"] = True' config /suid/id -u
same "set-user-ID with no_new_privs" 1000 "$(run)"

# --- files that runsc itself writes and connects to
echo keep >"$SCRATCH/keep"
ln -s "$SCRATCH/keep" "$SCRATCH/pid"
ln -s "$SCRATCH/keep" "$SCRATCH/pid.new"
config sleep 1000
runsc create --bundle "$BUNDLE" --pid-file "$SCRATCH/pid" e </dev/null >/dev/null 2>&1 || fail "create with a pid file"
same "--pid-file through a link" keep "$(cat "$SCRATCH/keep")"
[ -L "$SCRATCH/pid" ] && fail "the pid file is still a link"
grep -qx '[0-9]*' "$SCRATCH/pid" || fail "the pid file: $(cat "$SCRATCH/pid")"
runsc delete --force e
ln -s "$SCRATCH/keep" "$SCRATCH/console"
EDIT='c["process"]["terminal"] = True' config sleep 1000
said=$(runsc create --bundle "$BUNDLE" --console-socket "$SCRATCH/console" e </dev/null 2>&1) && fail "a console socket that is none: $said"
same "--console-socket through a link" keep "$(cat "$SCRATCH/keep")"
same "nothing is left of it" "" "$(ls -A "$ROOT")"

# --- names of sysctls that climb
for name in 'kernel/../../x' 'net.ipv4.../../hostname' '../self/comm' '...self.comm' 'kernel..hostname/../..'; do
  EDIT="c['linux']['sysctl'] = {'$name': 'x'}" config cat /proc/1/comm
  said=$(run) && fail "sysctl $name: $said"
done
safe "everything"
same "mounts" "" "$(grep -F "$SCRATCH" /proc/mounts)"
finish

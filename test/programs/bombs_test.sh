#!/usr/bin/env bash
# Bombs inside sandboxes with limits: each is refused, or killed, or does no harm; meanwhile a neighbour answers; and
# nothing is left behind.
. "$(dirname "$0")/lib.sh"
ROOT=$SCRATCH/root
BUNDLE=$SCRATCH/bundle
GROUP=redoubt-bombs-$$
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
cleanup() {
  for c in $("$RUNSC" --root "$ROOT" list -q); do "$RUNSC" --root "$ROOT" delete --force "$c"; done
  rm -rf "$SCRATCH"
}
trap cleanup EXIT
mkdir -p "$BUNDLE/rootfs/bin" "$BUNDLE/rootfs/tmp"
cp /bin/busybox "$BUNDLE/rootfs/bin/busybox"
for name in sh echo sleep true; do ln -s busybox "$BUNDLE/rootfs/bin/$name"; done
gcc -O1 -static -pthread -o "$BUNDLE/rootfs/bin/bomb" "$(dirname "$0")/bomb.c" || exit 1

# config MEMORY PIDS COMMAND...
config() {
  local memory=$1 pids=$2
  shift 2
  rm -f "$BUNDLE/config.json"
  "$RUNSC" spec --bundle "$BUNDLE" -- "$@" || fail "spec"
  python3 - "$BUNDLE/config.json" "$memory" "$pids" "$GROUP" <<'P'
import json, sys
path, memory, pids, group = sys.argv[1:]
c = json.load(open(path))
c["root"]["readonly"] = False
c["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 100000, "soft": 1024},
                            {"type": "RLIMIT_SIGPENDING", "hard": 2000, "soft": 2000}]
c["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=32m"]})
if int(memory):
    c["linux"]["resources"] = {"memory": {"limit": int(memory) << 20}, "pids": {"limit": int(pids)}}
    c["linux"]["cgroupsPath"] = "/" + group
json.dump(c, open(path, "w"))
P
}
config 0 0 sleep 1000
runsc run --detach --bundle "$BUNDLE" neighbour </dev/null >/dev/null 2>&1 || fail "the neighbour"
longest=0
# The neighbour's answer, within a second.
ask() {
  local start now
  start=$(date +%s%N)
  [ "$(LIMIT=20 runsc exec neighbour echo here)" = here ] || fail "$1: the neighbour does not answer"
  now=$(($(date +%s%N) - start))
  [ $now -gt $longest ] && longest=$now
  [ $now -le "${PATIENCE:-1000000000}" ] || fail "$1: the neighbour's answer took $((now / 1000000)) ms"
}
# bomb NAME SECONDS PATTERN [FLAGS...]: what it says, or how it ends, matches.
bomb() {
  local name=$1 seconds=$2 pattern=$3 said code
  shift 3
  config 96 100 /bin/bomb "$name" "$seconds"
  # At the end the first process goes, and all others with it.
  (LIMIT=$((seconds + 20)) runsc --overlay2=root:memory "$@" run --bundle "$BUNDLE" bomb </dev/null >"$SCRATCH/out" 2>"$SCRATCH/err"; echo $? >"$SCRATCH/code") &
  sleep 0.5
  while kill -0 $! 2>/dev/null; do
    ask "$name"
    sleep 0.2
  done
  wait $! 2>/dev/null
  code=$(cat "$SCRATCH/code")
  said="$(cat "$SCRATCH/out"); code $code"
  [[ $said =~ $pattern ]] || fail "$name: $said; $(head -c 600 "$SCRATCH/err")"
  [ "${BOMBS_VERBOSE:-}" ] && echo "$said; $(head -c 300 "$SCRATCH/err")"
  same "$name: containers" neighbour "$("$RUNSC" --root "$ROOT" list -q)"
}
bomb fork 3 '(fork: [0-9]+, (then (EAGAIN|ENOMEM)|never refused)); code 0|code 137$'
bomb thread 3 'thread: [0-9]+, then EAGAIN; code 0'
bomb memory 5 '^; code 137$'
bomb descriptor 3 'descriptor: [0-9]+, then (EMFILE|ENFILE); code 0|^; code 137$'
bomb event 3 'event: [0-9]+, then (EMFILE|ENFILE); code 0|^; code 137$'
bomb disk 5 'disk: [0-9]+, then (ENOSPC|ENOMEM); code 0|^; code 137$'
bomb tmpfs 5 'tmpfs: 512, then ENOSPC; code 0'
bomb inode 5 'inode: [0-9]+, then ENOSPC; code 0|^; code 137$'
bomb pipe 3 'pipe: [0-9]+, then (EMFILE|ENFILE); code 0|^; code 137$'
bomb socket 10 'socket: [0-9]+, then (EADDRINUSE|EMFILE|ENFILE|ENOMEM); code 0|^; code 137$'
bomb buffers 3 'buffers: [0-9]+, then (EMFILE|ENFILE|ENOMEM); code 0|^; code 137$'
bomb rights 2 'rights: [0-9]+, never refused; code 0'
bomb epoll 2 'epoll: [0-9]+, (then (EMFILE|ENFILE|ENOSPC)|never refused); code 0|^; code 137$'
bomb log 2 'log: [0-9]+, never refused; code 0' --debug --debug-log "$SCRATCH/logs"
size=$(du -sk "$SCRATCH/logs" | cut -f1)
[ "$size" -lt $((64 << 10)) ] || fail "log: $size KiB of logs"
bomb signal 3 'signal: 2000, then EAGAIN; code 0'
ask "afterwards"
runsc delete --force neighbour
same "nothing is left" "" "$(ls -A "$ROOT")"
same "control groups" "" "$(find /sys/fs/cgroup -maxdepth 2 -name "$GROUP")"
[ "${BOMBS_VERBOSE:-}" ] && echo "the longest answer: $((longest / 1000000)) ms"
finish

#!/usr/bin/env bash
# containerd drives runsc through its runc shim, as ctr asks it to.
. "$(dirname "$0")/lib.sh"
HOME_DIR=$(mktemp -d /tmp/rdctr.XXXX)
SOCKET=$HOME_DIR/sock
cat >"$HOME_DIR/config.toml" <<CONF
version = 2
root = "$HOME_DIR/root"
state = "$HOME_DIR/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$SOCKET"
[ttrpc]
  address = "$SOCKET.ttrpc"
CONF
containerd --config "$HOME_DIR/config.toml" >"$HOME_DIR/log" 2>&1 &
daemon=$!
ctr() { timeout "${LIMIT:-60}" /usr/bin/ctr --address "$SOCKET" --namespace "test-$$" "$@"; }
FLAGS="--runtime io.containerd.runc.v2 --runc-binary $RUNSC --runc-root $HOME_DIR/runsc"
cleanup() {
  local c
  for c in $(ctr task ls -q 2>/dev/null); do ctr task rm --force "$c" >/dev/null 2>&1; done
  for c in $(ctr container ls -q 2>/dev/null); do ctr container rm "$c" >/dev/null 2>&1; done
  kill $daemon
  wait $daemon 2>/dev/null
  for m in $(awk -v h="$HOME_DIR" 'index($2, h) == 1 { print $2 }' /proc/mounts | sort -r); do umount "$m"; done
  rm -rf "$HOME_DIR" "$SCRATCH"
}
trap cleanup EXIT
await ctr version || fail "containerd does not run: $(tail -3 "$HOME_DIR/log")"

# An image of one layer, in the form of `docker save`.
make_rootfs "$HOME_DIR/rootfs"
mkdir "$HOME_DIR/image"
tar -C "$HOME_DIR/rootfs" -cf "$HOME_DIR/image/layer.tar" .
python3 - "$HOME_DIR/image" <<'PY'
import hashlib, json, os, sys
d = sys.argv[1]
layer = hashlib.sha256(open(d + "/layer.tar", "rb").read()).hexdigest()
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
                     "rootfs": {"type": "layers", "diff_ids": ["sha256:" + layer]}})
name = hashlib.sha256(config.encode()).hexdigest() + ".json"
open(d + "/" + name, "w").write(config)
json.dump([{"Config": name, "RepoTags": ["localhost/bb:latest"], "Layers": ["layer.tar"]}], open(d + "/manifest.json", "w"))
PY
tar -C "$HOME_DIR/image" -cf "$HOME_DIR/image.tar" .
ctr images import "$HOME_DIR/image.tar" >/dev/null || fail "import"
IMAGE=localhost/bb:latest

# --- run
# shellcheck disable=SC2086
run() { ctr run --rm $FLAGS "$@"; }
same "run: output" hi "$(run $IMAGE a echo hi 2>&1)"
run $IMAGE b sh -c 'exit 7'
same "run: code" 7 $?
out=$(run $IMAGE c nonesuch 2>&1) && fail "run: a missing program runs"
[[ $out == *"executable file not found"* ]] || fail "run: the error does not come through: $out"
same "run: in the sandbox" redoubt "$(run $IMAGE d uname -r | sed 's/.*-//')"
same "run: the memory that it may have" 65536 "$(run --memory-limit 67108864 $IMAGE e awk '/MemTotal/ { print $2 }' /proc/meminfo)"

# --- a life
(ctr events >"$HOME_DIR/events" 2>&1) &
events=$!
# shellcheck disable=SC2086
ctr run -d $FLAGS $IMAGE l sh -c 'trap "exit 3" TERM; while true; do sleep 0.1; done' || fail "run -d"
status() { ctr task ls | awk -v n="$1" '$1 == n { print $3 }'; }
same "running" RUNNING "$(status l)"
same "exec" inside "$(ctr task exec --exec-id x l echo inside)"
ctr task exec --exec-id y l sh -c 'exit 5'
same "exec: code" 5 $?
ctr task exec --exec-id z l nonesuch >/dev/null 2>&1 && fail "exec: a missing program runs"
ctr task pause l && same "paused" PAUSED "$(status l)"
ctr task resume l && same "resumed" RUNNING "$(status l)"
ctr task ps l | grep -q "$(ctr task ls | awk '$1 == "l" { print $2 }')" || fail "ps: $(ctr task ps l)"
ctr task metrics l | grep -q '^memory.usage_in_bytes\|^memory' || fail "metrics: $(ctr task metrics l 2>&1)"
ctr task kill --signal TERM l || fail "kill"
stopped() { [ "$(status l)" = STOPPED ]; }
await stopped || fail "it has not ended: $(status l)"
out=$(ctr task rm l 2>&1)
[[ $out == *"non-zero exit code 3"* ]] || fail "exit status: $out"
ctr container rm l || fail "container rm"
await grep -q /tasks/delete "$HOME_DIR/events" || fail "events: no end of the task"
kill $events 2>/dev/null
for event in create start exec-added exec-started paused resumed exit delete; do
  grep -q "/tasks/$event" "$HOME_DIR/events" || fail "events: no /tasks/$event"
done
[ -z "$(ls -A "$HOME_DIR/runsc/test-$$" 2>/dev/null)" ] || fail "left: $(ls "$HOME_DIR/runsc/test-$$")"
finish

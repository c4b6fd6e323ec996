#!/usr/bin/env bash
# The life of a container as engines drive it: create, start, state, exec, kill, pause, delete, each in its right and
# its wrong order.
. "$(dirname "$0")/lib.sh"
ROOT=$SCRATCH/root
BUNDLE=$SCRATCH/bundle
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
trap 'for c in $("$RUNSC" --root "$ROOT" list -q); do "$RUNSC" --root "$ROOT" delete --force "$c"; done; rm -rf "$SCRATCH"' EXIT

mkdir -p "$BUNDLE/rootfs/bin" "$BUNDLE/rootfs/tmp"
cp /bin/busybox "$BUNDLE/rootfs/bin/busybox"
for name in sh cat echo sleep kill true false ps id env pwd yes head touch ls tty stty; do ln -s busybox "$BUNDLE/rootfs/bin/$name"; done

# config [-t] ARGS...: the bundle's configuration, changed by $EDIT (Python, on `c`).
config() {
  rm -f "$BUNDLE/config.json"
  "$RUNSC" spec --bundle "$BUNDLE" -- "$@" || fail "spec"
  python3 - "$BUNDLE/config.json" <<PY
import json, sys
c = json.load(open(sys.argv[1]))
c["root"]["readonly"] = False
${EDIT:-}
json.dump(c, open(sys.argv[1], "w"))
PY
}
status() { runsc state "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["status"])'; }
pid() { runsc state "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }
# Waits for a condition.
await() {
  for _ in $(seq 200); do
    "$@" && return 0
    sleep 0.05
  done
  return 1
}
is() { [ "$(status "$1")" = "$2" ]; }
# refused TEXT COMMAND...: fails with one line that has TEXT.
refused() {
  local text=$1 said
  shift
  said=$(runsc "$@" 2>&1 >/dev/null) && fail "$* succeeded"
  [[ $said == *"$text"* ]] || fail "$*: said \"$said\", not \"$text\""
  [ "$(wc -l <<<"$said")" -eq 1 ] || fail "$*: more than one line: $said"
}

# --- run
config sh -c 'echo out; echo err >&2; exit 7'
out=$(runsc run --bundle "$BUNDLE" a 2>"$SCRATCH/err")
same "run: code" 7 $?
same "run: stdout" out "$out"
same "run: stderr" err "$(cat "$SCRATCH/err")"
same "run: nothing is left" "" "$(runsc list -q)"
[ -z "$(ls -A "$ROOT")" ] || fail "run left $(ls -A "$ROOT")"
config sh -c 'kill -TERM $$; kill -KILL $$; exit 6'
runsc run --bundle "$BUNDLE" a
same "run: the first process of a PID namespace is safe from inside" 6 $?
EDIT='c["linux"]["namespaces"] = [n for n in c["linux"]["namespaces"] if n["type"] != "pid"]' config sh -c 'kill -TERM $$; exit 6'
runsc run --bundle "$BUNDLE" a
same "run: killed by a signal" 143 $?

# --- create, start, kill, delete
config sh -c 'echo started > /tmp/started; trap "exit 3" TERM; while true; do sleep 0.1; done'
runsc create --bundle "$BUNDLE" --pid-file "$SCRATCH/pid" c </dev/null >"$SCRATCH/out" 2>&1 || fail "create: $(cat "$SCRATCH/out")"
same "created" created "$(status c)"
same "pid file" "$(pid c)" "$(cat "$SCRATCH/pid")"
[ "$(stat -c %s "$SCRATCH/pid")" -eq "$(pid c | tr -d '\n' | wc -c)" ] || fail "pid file has more than digits"
refused 'container "c" already exists' create --bundle "$BUNDLE" c
[ -e "$BUNDLE/rootfs/tmp/started" ] && fail "it ran before start"
runsc start c || fail "start"
await test -e "$BUNDLE/rootfs/tmp/started" || fail "it does not run"
same "running" running "$(status c)"
refused 'cannot start a container that is running' start c
refused 'cannot delete a container that is running' delete c
same "list" c "$(runsc list -q)"
runsc list | grep -q '^c .*running' || fail "list shows it"
runsc list --format json | python3 -c 'import json, sys; assert json.load(sys.stdin)[0]["id"] == "c"' || fail "list as JSON"

# --- exec
same "exec: output" hello "$(runsc exec c echo hello)"
same "exec: words that are commands and dashes of ours" "do -- list -- x" "$(runsc exec c echo do -- list -- x)"
same "exec: after dashes" "kill -- y" "$(runsc exec c -- echo kill -- y)"
runsc exec c sh -c 'exit 5'
same "exec: code" 5 $?
same "exec: stdin" typed "$(echo typed | runsc exec c cat)"
same "exec: identity" "uid=7 gid=8" "$(runsc exec --user 7:8 c id | sed 's/ groups.*//; s/([^)]*)//g')"
same "exec: environment and directory" "v /tmp" "$(runsc exec --env A=v --cwd /tmp c sh -c 'echo $A $(pwd)')"
runsc exec c nonesuch 2>"$SCRATCH/err"
same "exec: not found" 127 $?
grep -q 'executable file not found' "$SCRATCH/err" || fail "exec: text: $(cat "$SCRATCH/err")"
runsc exec c /tmp 2>/dev/null
same "exec: not executable" 126 $?
runsc exec --detach --pid-file "$SCRATCH/exec_pid" c sh -c 'exec sleep 1000' || fail "exec --detach"
exec_pid=$(cat "$SCRATCH/exec_pid")
[ -d "/proc/$exec_pid" ] || fail "the process of a detached exec is not there"
runsc ps --format json c | python3 -c "import json, sys; assert sorted(json.load(sys.stdin)) == sorted([$(pid c), $exec_pid])" || fail "ps as JSON"
runsc ps c | grep -q 'sleep 1000' || fail "ps shows the exec: $(runsc ps c)"
kill -TERM "$exec_pid"
await test ! -d "/proc/$exec_pid" || fail "a signal to the process outside does not end the one inside"
await sh -c '! "$0" --root "$1" ps c | grep -q "sleep 1000"' "$RUNSC" "$ROOT" || fail "the exec is still there"
cat >"$SCRATCH/process.json" <<'JSON'
{"args": ["sh", "-c", "echo $B; pwd"], "env": ["B=b", "PATH=/bin"], "cwd": "/tmp", "user": {"uid": 0, "gid": 0}}
JSON
same "exec --process" "b /tmp" "$(runsc exec --process "$SCRATCH/process.json" c | tr '\n' ' ' | sed 's/ $//')"

# --- what it may still do
walls=$(runsc debug --walls c) || fail "debug --walls"
[[ $walls == *runsc-sandbox*runsc-gofer* || $walls == *runsc-gofer*runsc-sandbox* ]] || fail "debug --walls: $walls"
runsc debug --stacks c | grep -q '^pid 1 tid 1 (sh)' || fail "debug --stacks: $(runsc debug --stacks c)"

# --- pause
runsc pause c || fail "pause"
same "paused" paused "$(status c)"
refused 'cannot pause a container that is paused' pause c
refused 'paused' exec c true
runsc exec --ignore-paused c sh -c 'echo once it runs; exit 6' >"$SCRATCH/waits" &
waits=$!
sleep 0.5
same "exec --ignore-paused waits" "" "$(cat "$SCRATCH/waits")"
kill -0 $waits 2>/dev/null || fail "exec --ignore-paused has ended"
runsc resume c || fail "resume"
same "resumed" running "$(status c)"
refused 'cannot resume a container that is running' resume c
wait $waits
same "exec --ignore-paused: code" 6 $?
same "exec --ignore-paused: output" "once it runs" "$(cat "$SCRATCH/waits")"

# --- what takes long is told, on a terminal only
sentry=$(pgrep -P "$(pid c)" -x runsc-sandbox)
slow() { # COMMAND: its output, of a Sentry that stands still for a while
  kill -STOP "$sentry"
  (sleep 1.5; kill -CONT "$sentry") &
  "$@"
  wait $!
}
same "progress" 'runsc: container "c": waiting for its processes to come to rest' \
  "$(slow script -qec "timeout 60 '$RUNSC' --root '$ROOT' pause c" /dev/null </dev/null | tr -d '\r')"
same "no progress for nobody" "" "$(slow runsc resume c 2>&1)"

# --- where there is no systemd
if [ ! -d /run/systemd/system ]; then
  cp "$BUNDLE/config.json" "$SCRATCH/saved.json"
  EDIT='c["linux"]["cgroupsPath"] = "system.slice:runsc:d"' config true
  refused '--systemd-cgroup: systemd does not run on this host' --systemd-cgroup create --bundle "$BUNDLE" d
  cp "$SCRATCH/saved.json" "$BUNDLE/config.json"
fi

# --- events
runsc events --stats c | python3 -c 'import json, sys; e = json.load(sys.stdin); assert e["type"] == "stats" and e["data"]["pids"]["current"] >= 1 and e["data"]["memory"]["usage"]["usage"] > 0' || fail "events"

# --- the end
(runsc wait c >"$SCRATCH/wait") &
waiter=$!
runsc kill c TERM || fail "kill"
await is c stopped || fail "it has not ended: $(status c)"
wait $waiter
same "wait" '{"id":"c","exitStatus":3}' "$(cat "$SCRATCH/wait")"
refused 'container not running' kill c TERM
runsc kill --all c KILL || fail "kill --all of a stopped container"
refused 'container not running' exec c true
refused 'cannot start a container that is stopped' start c
runsc delete c || fail "delete"
refused 'container "c" does not exist' delete c
refused 'container "c" does not exist' state c
runsc delete --force c || fail "delete --force of nothing"

# --- delete of one that only was created, and by force
config sleep 1000
runsc create --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 && runsc delete c || fail "delete of a created container"
runsc run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 && runsc delete --force c || fail "delete --force"
same "nothing is left" "" "$(ls -A "$ROOT")"

# --- what cannot be
refused 'config.json' create --bundle "$SCRATCH/nothing" c
config nonesuch
runsc create --bundle "$BUNDLE" c </dev/null 2>"$SCRATCH/err" >/dev/null
same "create: not found" 127 $?
grep -q 'executable file not found' "$SCRATCH/err" || fail "create: text: $(cat "$SCRATCH/err")"
same "nothing is left of a failed create" "" "$(ls -A "$ROOT")"
EDIT='c["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["rbind"]})' config true
refused 'mounts[5].source: /no/such: No such file or directory' create --bundle "$BUNDLE" c
refused 'invalid container ID' create --bundle "$BUNDLE" a/b
# The bundle may go meanwhile.
config sleep 1000
mv "$BUNDLE" "$SCRATCH/moving"
cp -a "$SCRATCH/moving" "$BUNDLE"
runsc run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || fail "run --detach"
rm -f "$BUNDLE/config.json"
same "exec with the bundle gone" ok "$(runsc exec c echo ok)"
runsc delete --force c || fail "delete with the bundle gone"

# The host's own root may be a container's.
EDIT='c["root"] = {"path": "/", "readonly": True}' config sleep 1000
runsc run --detach --bundle "$BUNDLE" r </dev/null >/dev/null 2>&1 || fail "run of the host's root"
same "exec on the host's root" "$(cat /etc/hostname)" "$(runsc exec r cat /etc/hostname)"
runsc delete --force r

# --- a Sentry that crashes, a damaged state
config sleep 1000
runsc run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || fail "run --detach"
sandbox_pid=$(cat /proc/"$(pid c)"/task/*/children | tr ' ' '\n' | while read -r p; do
  [ "$(cat "/proc/$p/comm" 2>/dev/null)" = runsc-sandbox ] && echo "$p"; done | head -1)
kill -9 "$sandbox_pid"
await is c stopped || fail "a dead Sentry is not seen"
runsc delete c || fail "delete after a crash"
runsc run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || fail "run --detach"
relay=$(pid c)
echo '{' >"$ROOT/c/state.json"
refused 'is damaged' state c
refused 'is damaged' kill c KILL
runsc delete --force c || fail "delete --force of a damaged state"
await test ! -d "/proc/$relay" || fail "delete --force of a damaged state left its processes"
same "nothing is left of it" "" "$(ls -A "$ROOT")"

# --- hooks
export HOOKS=$SCRATCH/hooks
EDIT='
import os
def hook(name, code=0):
    return [{"path": "/bin/sh", "args": ["sh", "-c", "echo " + name + " $(cat) >> " + os.environ["HOOKS"] + "; exit %d" % code]}]
c["hooks"] = {k: hook(k) for k in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]}' config true
runsc run --bundle "$BUNDLE" h || fail "run with hooks"
same "hooks in order" "prestart createRuntime createContainer poststart poststop" "$(awk '{print $1}' "$HOOKS" | tr '\n' ' ' | sed 's/ $//')"
grep -q '^prestart .*"id":"h".*"status":"creating"' "$HOOKS" || fail "a hook gets the state: $(head -1 "$HOOKS")"
rm -f "$HOOKS"
EDIT='c["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 4"]}]}' config true
refused 'createRuntime hook /bin/sh: exit status 4: no luck' create --bundle "$BUNDLE" h
same "nothing is left of it" "" "$(ls -A "$ROOT")"

EDIT='
c["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/hook; echo $H >> /tmp/hook; uname -r >> /tmp/hook"], "env": ["H=h", "PATH=/bin"]}]}' config cat /tmp/hook
ln -sf busybox "$BUNDLE/rootfs/bin/uname"
out=$(runsc run --bundle "$BUNDLE" h)
[[ $out == *'"id":"h"'*h*redoubt* ]] || fail "a startContainer hook runs inside, before the program: $out"
EDIT='c["hooks"] = {"startContainer": [{"path": "/bin/false"}]}' config true
runsc create --bundle "$BUNDLE" h </dev/null >/dev/null 2>&1 || fail "create with a hook that will fail"
refused 'startContainer hook /bin/false: exit status 1' start h
await is h stopped || fail "it goes on after a failed hook"
runsc delete h

# --- the log of engines
runsc --log "$SCRATCH/log.json" --log-format json start nonesuch 2>/dev/null
python3 -c 'import json, sys; e = json.load(open(sys.argv[1])); assert e["level"] == "error" and "does not exist" in e["msg"] and "T" in e["time"]' "$SCRATCH/log.json" || fail "the log"
runsc -log "$SCRATCH/log2" -log-format=json start nonesuch 2>/dev/null
[ -s "$SCRATCH/log2" ] || fail "Go's way to write flags"

# --- stdout is let go of when the container ends, not later
config sh -c 'echo x'
same "pipes end" x "$(runsc run --detach --bundle "$BUNDLE" p </dev/null 2>&1 && timeout 10 cat </dev/null)"
runsc delete --force p
finish

#!/usr/bin/env bash
# Many commands at once, some of them killed: no lock is left behind, no process, no directory.
. "$(dirname "$0")/lib.sh"
ROOT=$SCRATCH/root
BUNDLE=$SCRATCH/bundle
export ROOT BUNDLE RUNSC
trap 'for c in $("$RUNSC" --root "$ROOT" list -q); do "$RUNSC" --root "$ROOT" delete --force "$c"; done; rm -rf "$SCRATCH"' EXIT
mkdir -p "$ROOT" "$BUNDLE/rootfs/bin"
cp /bin/busybox "$BUNDLE/rootfs/bin/busybox"
for name in sh echo sleep true; do ln -s busybox "$BUNDLE/rootfs/bin/$name"; done
"$RUNSC" spec --bundle "$BUNDLE" -- sleep 1000

# Three execs in one container, and its end.
one() {
  local id=c$1
  timeout 120 "$RUNSC" --root "$ROOT" create --bundle "$BUNDLE" "$id" </dev/null >/dev/null 2>"$ROOT/../err.$1" || { echo "create $id: $(cat "$ROOT/../err.$1")"; return 1; }
  timeout 120 "$RUNSC" --root "$ROOT" start "$id" || { echo "start $id"; return 1; }
  for n in 1 2 3; do
    [ "$(timeout 120 "$RUNSC" --root "$ROOT" exec "$id" echo "$n")" = "$n" ] || { echo "exec $id"; return 1; }
  done
  timeout 120 "$RUNSC" --root "$ROOT" delete --force "$id" || { echo "delete $id"; return 1; }
}
export -f one
said=$(seq 50 | xargs -P 10 -I{} bash -c 'one {}' 2>&1) || fail "in a crowd: $said"
same "nothing is left" "" "$(ls -A "$ROOT")"

# Commands killed at any moment. What they leave is seen and can be removed; an ID can be used again.
killed() {
  local id=k$1
  for command in "create --bundle $BUNDLE $id" "start $id" "exec $id true" "delete --force $id"; do
    # shellcheck disable=SC2086
    "$RUNSC" --root "$ROOT" $command </dev/null >/dev/null 2>&1 &
    local pid=$!
    sleep "0.00$((RANDOM % 10))"
    [ $((RANDOM % 2)) -eq 0 ] && kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
  done
  timeout 120 "$RUNSC" --root "$ROOT" delete --force "$id" || { echo "delete $id"; return 1; }
  [ ! -e "$ROOT/$id/state.json" ] || { echo "$id is still there"; return 1; }
}
export -f killed
said=$(seq 50 | xargs -P 10 -I{} bash -c 'killed {}' 2>&1) || fail "killed: $said"
said=$(seq 50 | xargs -P 10 -I{} bash -c '"$RUNSC" --root "$ROOT" run --bundle "$BUNDLE" k{} </dev/null >/dev/null 2>&1 & sleep 0.0$((RANDOM % 10)); kill -9 $!; wait $!; timeout 120 "$RUNSC" --root "$ROOT" delete --force k{}' 2>/dev/null) || fail "killed runs: $said"
for _ in $(seq 100); do
  left=$(pgrep -f "root $ROOT" || true)
  [ -z "$left" ] && break
  sleep 0.1
done
[ -z "$left" ] || fail "left: $(ps -o pid,args -p "$(echo "$left" | paste -sd,)")"
finish

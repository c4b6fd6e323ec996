. "$(dirname "$0")/lib.sh"
# Nothing may be left after a run, nor after any of its processes was killed at any moment.
# Other tests may run sandboxes of their own at the same time, so only descendants by session are counted.
# Tests of the network that run at the same time mount the names of their namespaces.
mounts() { grep -vc ' /run/netns' /proc/mounts; }
mounts=$(mounts)
setsid -w timeout 60 "$RUNSC" do sh -c 'true & true' || fail "plain run"
for round in $(seq 1 24); do
  setsid "$RUNSC" do sh -c 'while :; do (true); echo x; done' >/dev/null 2>&1 &
  # setsid(1) becomes it, as a job is no group leader here. Not by name alone: the same test may run on another platform.
  cli=$!
  for _ in $(seq 50); do pgrep -f "^$RUNSC do sh -c while" | grep -qx "$cli" && break; sleep 0.01; done
  sleep "0.0$((round * 4 % 10))$((round % 10))"
  [ $((round % 4)) -eq 3 ] && sleep 0.3
  victims=$(ps -eo pid,ppid,args --no-headers | awk -v c="$cli" '$2 == c { print $1, $3 }')
  sandbox_pid=$(awk '/runsc-sandbox/ { print $1 }' <<<"$victims")
  gofer_pid=$(awk '/runsc-gofer/ { print $1 }' <<<"$victims")
  tree=$(ps -eo pid,sid --no-headers | awk -v c="$cli" '$2 == c { print $1 }')
  stubs=$(ps -eo pid,ppid --no-headers | awk -v c="${sandbox_pid:-none}" '$2 == c { print $1 }')
  case $((round % 3)) in
    0) kill -9 "$cli" ;;
    1) kill -9 ${sandbox_pid:-$cli} ;;
    2) kill -9 ${gofer_pid:-$cli} ;;
  esac
  wait 2>/dev/null
  gone=0
  for _ in $(seq 60); do
    alive=""
    for p in $tree $stubs; do
      [ -d "/proc/$p" ] && [ "$(awk '{ print $3 }' "/proc/$p/stat" 2>/dev/null)" != Z ] && alive="$alive $p"
    done
    [ -z "$alive" ] && gone=1 && break
    sleep 0.05
  done
  [ $gone -eq 1 ] || fail "round $round: still there: $(ps -o pid,ppid,stat,args -p $(tr ' ' ',' <<<"${alive# }"))"
done
same "mounts" "$mounts" "$(mounts)"
finish

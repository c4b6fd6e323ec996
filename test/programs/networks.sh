# Sourced after lib.sh by tests with network namespaces of their own: nothing is done to the machine's. What is in `pids`, and all that still
# runs in the namespaces, ends with the test.
pids=()
namespaces=()
# Before anything else ends: containers, for instance.
before_cleanup() { :; }
cleanup() {
  before_cleanup
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done
  for n in "${namespaces[@]}"; do ip netns pids "$n" 2>/dev/null | xargs -r kill 2>/dev/null; done
  wait
  for n in "${namespaces[@]}"; do ip netns del "$n" 2>/dev/null; done
  rm -rf "$SCRATCH"
}
trap cleanup EXIT
# Programs only, no functions: what is killed is the program, not a shell around it.
background() {
  "$@" &
  pids+=($!)
}
# make_namespaces NAME...: each with its loopback up.
make_namespaces() {
  for n in "$@"; do
    ip netns add "$n" || { echo "cannot make network namespaces" >&2; exit 1; }
    namespaces+=("$n")
    ip -n "$n" link set lo up
  done
}
# wire NAMESPACE DEVICE NAMESPACE: a veth pair made inside, so that the machine never sees it; at the other end it is eth0. The ends are 1 and 2 of
# 192.0.2.0/24 and 2001:db8::/64.
wire() {
  ip -n "$1" link add "$2" type veth peer name eth0 netns "$3"
  address "$1" "$2" 192.0.2.1 2001:db8::1
  address "$3" eth0 192.0.2.2 2001:db8::2
}
# address NAMESPACE DEVICE IPV4 IPV6
address() {
  ip -n "$1" addr add "$3/24" dev "$2" && ip -n "$1" addr add "$4/64" dev "$2" nodad && ip -n "$1" link set "$2" up
}
# make_iperf FILE: iperf3 in JSON, of which it says whether bytes went over. Its server closes its listener between two clients, which resets one that
# comes too soon: again.
make_iperf() {
  cat >"$1" <<'SCRIPT'
#!/bin/bash
for i in 1 2 3 4 5; do
  # It also ends with 0 when it says no more than an error.
  out=$(iperf3 -J "$@") && grep -q '"sum_received"' <<<"$out" && break
  sleep 0.5
done
python3 -c 'import json, sys
said = json.load(sys.stdin)
end = said["end"]
print("iperf3", end["sum_received"]["bits_per_second"] > 1e6 if "sum_received" in end else said.get("error"))' <<<"$out"
SCRIPT
  chmod +x "$1"
}

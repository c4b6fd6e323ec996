#!/bin/bash
# Usage: netstack_http_test.sh PROGRAM. Fetches pages of several sizes with the host's TCP from ours.
set -euo pipefail
program=$(realpath "$1")
if [ "${2:-}" != inside ]; then
  if [ "$(id -u)" != 0 ] || ! unshare -n true 2>/dev/null; then
    echo "needs root and network namespaces"
    exit 1
  fi
  exec unshare -n "$0" "$program" inside
fi
work=$(mktemp -d)
ip tuntap add tap0 mode tap vnet_hdr
ip addr add 192.0.2.1/24 dev tap0
ip link set tap0 up
"$program" tap0 192.0.2.2/24 "$work/capture.pcap" &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
fetch() { curl -sS --retry 5 --retry-connrefused --max-time 30 "http://192.0.2.2/$1"; }
[ "$(fetch '')" = "Hello from a TCP/IP in user space." ]
for size in 1 1460 65536 20000000; do
  fetch $size > "$work/page"
  [ "$(stat -c %s "$work/page")" = $size ]
  [ "$(tr -d x < "$work/page" | wc -c)" = 0 ]
done
# Several at once.
pids=()
for i in 1 2 3 4 5 6 7 8; do
  fetch 300000 > "$work/page.$i" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
for i in 1 2 3 4 5 6 7 8; do [ "$(stat -c %s "$work/page.$i")" = 300000 ]; done
# The capture holds at least what was fetched.
[ "$(stat -c %s "$work/capture.pcap")" -gt 20000000 ]
echo "all pages came whole"

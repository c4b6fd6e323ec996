#!/bin/bash
# The sandbox survives the fuzzer: it ends by itself, with nothing said on stderr.
#   FUZZ_SECONDS, FUZZ_SEED: how long, and from where on
set -uo pipefail
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
fuzz=$(readlink -f "${FUZZ:?}")
seconds=${FUZZ_SECONDS:-15}
timeout -k 5 $((seconds + 60)) "${RUNSC:?}" --memory=2048 do "$fuzz" "$seconds" "${FUZZ_SEED:-$RANDOM}" >"$tmp/out" 2>"$tmp/err" </dev/null
status=$?
tail -3 "$tmp/out"
if [ $status -ne 0 ] || [ -s "$tmp/err" ] || ! grep -q ' workers, up to ' "$tmp/out"; then
  echo "FAIL: status $status; repeat with: runsc --platform=${RUNSC_PLATFORM:-auto} do syscall_fuzz 0 $(awk '/^seed/ { s = $2 } END { print s }' "$tmp/out")"
  head -c 4000 "$tmp/err"
  exit 1
fi

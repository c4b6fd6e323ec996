#!/bin/bash
# The sandbox survives the fuzzer: it ends by itself, and has nothing to say. (The fuzzer itself writes anything anywhere.)
#   FUZZ_SECONDS, FUZZ_SEED: how long, and from where on
set -uo pipefail
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
fuzz=$(readlink -f "${FUZZ:?}")
seconds=${FUZZ_SECONDS:-15}
# What it writes is read as it comes: it may be gigabytes of zeros, and a file it could stretch.
mkfifo "$tmp/pipe" || exit 1
(head -c 1M >"$tmp/err"; cat >/dev/null) <"$tmp/pipe" &
reader=$!
timeout -k 5 $((seconds + 60)) "${RUNSC:?}" --memory=2048 do "$fuzz" "$seconds" "${FUZZ_SEED:-$RANDOM}" 2>"$tmp/pipe" </dev/null |
  tr '\0' '\n' | grep -a "^seed\| workers, up to \|HANG" >"$tmp/out"
status=${PIPESTATUS[0]}
wait "$reader"
grep -a " workers, up to \|HANG" "$tmp/out"
if [ $status -ne 0 ] || grep -aqE '^runsc: |internal error|^[EW][0-9]{4} ' "$tmp/err" || ! grep -aq ' workers, up to ' "$tmp/out"; then
  echo "FAIL: status $status; repeat with: runsc --platform=${RUNSC_PLATFORM:-auto} do syscall_fuzz 0 $(grep -a '^seed' "$tmp/out" | awk '/^seed/ { s = $2 } END { print s }')"
  head -c 4000 "$tmp/err"
  exit 1
fi

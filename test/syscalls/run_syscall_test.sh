#!/bin/bash
# Runs a syscall test on a platform and compares each test's outcome with the expectations file.
#   run_syscall_test.sh PLATFORM BINARY EXPECTATIONS [RUNSC]
# PLATFORM_host is that platform with --network=host, with expectations of its own.
# Fails for a failure or skip that is not expected, for an expected one that passes, and for a run that does not reach its end.
set -u
platform=$1 binary=$(readlink -f "$2") expectations=$3 runsc=${4:-}
family=$(basename "$binary")
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
umask 022

network=
[[ $platform == *_host ]] && network=--network=host
if [[ $platform == native ]]; then
  timeout -k 5 55 "$binary" >"$tmp/out" 2>&1 </dev/null
else
  # The binary's own directory may be one that the sandbox does not show or that nobody may enter.
  timeout -k 5 55 "$runsc" --root="$tmp/root" --platform="${platform%_host}" $network --debug-log="$tmp/log" do "$binary" >"$tmp/out" 2>&1 </dev/null
fi
status=$?

awk -v platform="$platform" -v family="$family" -v status="$status" '
  FNR == NR {
    if ($1 == platform && index($2, family ":") == 1) {
      name = substr($2, length(family) + 2)
      expected[name] = 1
      reason[name] = substr($0, index($0, $2) + length($2) + 1)
    }
    next
  }
  $1 == "@@" && $2 == "END" { ended = 1; next }
  $1 == "@@" {
    outcome[$3] = $2
    count++
    if ($2 == "PASS") {
      passed++
      if ($3 in expected) { print "UNEXPECTED PASS: " $3 " (expected to fail: " reason[$3] ")"; bad++ }
    } else if ($3 in expected) {
      known++
    } else {
      printf "%s", log_
      sub(/^@@ /, "")
      print "UNEXPECTED " $0
      bad++
    }
    log_ = ""
    next
  }
  /^\[ RUN/ { log_ = "" }
  { log_ = log_ $0 "\n" }
  END {
    for (name in expected) if (!(name in outcome)) { print "expected to fail but never ran: " name; bad++ }
    if (!ended) { printf "%s", log_; print "the run did not reach its end (status " status ")"; bad++ }
    if (count == 0) { print "no test ran"; bad++ }
    printf "%s on %s: %d passed, %d known failures, %d problems\n", family, platform, passed, known, bad
    exit bad > 0
  }
' "$expectations" "$tmp/out"
result=$?
# What the sandbox has to say of it.
[ $result -eq 0 ] || ! [ -d "$tmp/log" ] || grep -ahE '^[WE]' "$tmp/log"/* | tail -n 20
exit $result

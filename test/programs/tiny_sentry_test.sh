. "$(dirname "$0")/lib.sh"
same "the example runs a static program" "hello" "$(timeout 60 "$TINY_SENTRY" "$(command -v busybox)" echo hello 2>&1)"
lines=$(wc -l < "$TINY_SENTRY_SOURCE")
[ "$lines" -lt 200 ] || fail "the example has grown to $lines lines"
finish

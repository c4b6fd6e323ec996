# Sourced by every test here: $RUNSC, a scratch directory, and checks that say what differed.
set -uo pipefail
RUNSC=$(readlink -f "${RUNSC:?}")
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
failures=0

fail() {
  echo "FAIL: $*" >&2
  failures=$((failures + 1))
}
# same NAME EXPECTED ACTUAL
same() {
  if [ "$2" != "$3" ]; then
    fail "$1"
    diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") | head -20 >&2
  fi
}
# The command inside; a hang is a failure of its own.
sandbox() { timeout "${LIMIT:-120}" "$RUNSC" do "$@"; }
# Runs the command natively and inside and compares output and exit code.
same_as_native() {
  local name=$1 native inside native_code inside_code
  shift
  native=$("$@" 2>&1)
  native_code=$?
  inside=$(sandbox "$@" 2>&1)
  inside_code=$?
  same "$name: output" "$native" "$inside"
  same "$name: exit code" "$native_code" "$inside_code"
}
finish() {
  if [ $failures -eq 0 ]; then
    echo "ok"
    exit 0
  fi
  exit 1
}

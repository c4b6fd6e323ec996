#!/usr/bin/env bash
# The package has what it should, and what is in it works.
set -uo pipefail
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failures=0
fail() {
  echo "FAIL: $*" >&2
  failures=$((failures + 1))
}
dpkg-deb --extract "$DEB" "$root" || fail "extract"
[ "$(dpkg-deb --field "$DEB" Package)" = runsc ] || fail "its name"
[ "$(dpkg-deb --field "$DEB" Version)" = "$("$root/usr/bin/runsc" --version | sed -n 's/^runsc version \([^ ]*\).*/\1/p')" ] || fail "its version"
[ "$("$root/usr/bin/runsc" do echo hi)" = hi ] || fail "the program does not run"
# man(1) would warn of what it cannot read.
page=$(gzip -dc "$root/usr/share/man/man8/runsc.8.gz")
for word in 'SH COMMANDS' 'SS create' 'SS exec' 'debug\\-log'; do grep -q -- "$word" <<<"$page" || fail "the manual page lacks $word"; done
# The completion completes.
completed=$(bash -c "source '$root/usr/share/bash-completion/completions/runsc'; COMP_WORDS=(runsc cr); COMP_CWORD=1; _runsc; echo \"\${COMPREPLY[*]}\"")
[ "$completed" = create ] || fail "completion of a command: \"$completed\""
completed=$(bash -c "source '$root/usr/share/bash-completion/completions/runsc'; COMP_WORDS=(runsc create --bun); COMP_CWORD=2; _runsc; echo \"\${COMPREPLY[*]}\"")
[ "$completed" = --bundle ] || fail "completion of a flag: \"$completed\""
[ $failures -eq 0 ] && echo ok
exit $((failures > 0))

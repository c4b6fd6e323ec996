set -euo pipefail
bench=$(readlink -f "$BENCH")
flags="--benchmark_min_time=0.001"
native=$("$bench" $flags --benchmark_format=csv 2>/dev/null | grep -c '^"')
inside=$(timeout 120 "$(readlink -f "$RUNSC")" do "$bench" $flags --benchmark_format=csv 2>/dev/null | grep -c '^"')
echo "native $native, inside $inside"
[ "$native" -gt 10 ] && [ "$native" = "$inside" ]

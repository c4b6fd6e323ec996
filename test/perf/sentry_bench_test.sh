#!/bin/bash
# That every benchmark works, and allocates no more than it is allowed to; not how fast it is. A budget that is met with room to spare is to
# be lowered.
set -euo pipefail

declare -A BUDGET=(
  [BM_GetPpid]=0 [BM_OpenCloseTmpfs]=1 [BM_OpenCloseHost]=2 [BM_OpenCloseOverlay]=3 [BM_StatTmpfs]=0 [BM_StatHost]=1
  [BM_PRead4KTmpfs]=0 [BM_PRead4KHost]=0 [BM_LseekRead4KTmpfs]=0 [BM_PipeWriteRead]=0 [BM_EpollWaitReady]=0
  [BM_FutexWakeNone]=0 [BM_KillSigtimedwait]=0 [BM_MmapMunmap]=4 [BM_ThreadCreateJoin]=16 [BM_ForkExitWait]=40
)

out=$("$BENCH" --benchmark_min_time=0.001 --benchmark_format=csv 2> /dev/null)
failed=0
for name in "${!BUDGET[@]}"; do
  line=$(grep "^\"$name/" <<< "$out") || { echo "$name did not run"; failed=1; continue; }
  allocs=${line##*,}
  if (( ${allocs%.*} > BUDGET[$name] )); then
    echo "$name: $allocs allocations, allowed are ${BUDGET[$name]}"
    failed=1
  fi
done
for name in BM_LoopGetPpid BM_LoopSignalSelf BM_StatHostMissing; do
  grep -q "^\"$name/" <<< "$out" || { echo "$name did not run"; failed=1; }
done
exit $failed

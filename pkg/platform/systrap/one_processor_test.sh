#!/usr/bin/env bash
# The platform's tests where there is one processor, on which whoever waits by looking keeps away whom it waits for. Left
# out are those that have two guests at work at once, for which a process has two threads only on two processors.
#
#   one_processor_test.sh SYSTRAP_TEST
set -euo pipefail
first=$(taskset -cp $$ | sed -E 's/.*: ([0-9]+).*/\1/')
two='*InterruptsRaceWithSyscalls*:*FpStateCanBePulledAndPushed*:*MapsWhileAnotherThreadRuns*:*TwoContextsRunInParallel*'
exec taskset -c "$first" "$1" --gtest_filter="-$two"

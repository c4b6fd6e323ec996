// What is told of a container's processes: `runsc ps`, `events`, `debug`.
#ifndef REDOUBT_RUNSC_BOOT_INSPECT_H_
#define REDOUBT_RUNSC_BOOT_INSPECT_H_

#include <string>
#include <vector>

#include "pkg/sentry/kernel/kernel.h"
#include "runsc/control/protocol.h"

namespace redoubt::boot {

// All from a fiber, of processes that go on meanwhile.
std::vector<control::ProcessInfo> Processes(kernel::Kernel& kernel, const kernel::Container& container);
// `memory_limit`: what the sandbox was given.
control::Stats Stats(kernel::Kernel& kernel, const kernel::Container& container, uint64_t memory_limit);
// A line a task: who it is, and what it does or waits for.
// Of the container where they are counted so, otherwise of the sandbox. Faults are of processes that are there.
std::vector<control::Metric> Metrics(kernel::Kernel& kernel, const kernel::Container& container, uint64_t memory_limit);
// The calls that were made and are not implemented, a line each; and what --summary says besides.
std::string MissingText();
std::string Summary(kernel::Kernel& kernel, const kernel::Container& container);
std::string Stacks(kernel::Kernel& kernel, const kernel::Container& container);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_INSPECT_H_

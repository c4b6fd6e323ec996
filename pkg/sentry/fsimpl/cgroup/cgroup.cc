#include "pkg/sentry/fsimpl/cgroup/cgroup.h"

#include <fmt/format.h>
#include <linux/magic.h>

#include <string>
#include <utility>

#include "pkg/hostarch/hostarch.h"
#include "pkg/sentry/fsimpl/synthetic/synthetic.h"

namespace redoubt::cgroup {

namespace {

using synthetic::Directory;
using synthetic::FunctionFile;

std::string OrMax(const std::optional<uint64_t>& limit) { return limit ? std::to_string(*limit) : "max"; }

class CgroupFilesystem final : public synthetic::SyntheticFilesystem {
 public:
  CgroupFilesystem(const Limits& limits, Usage usage)
      : SyntheticFilesystem("cgroup2", CGROUP2_SUPER_MAGIC),
        usage_(std::move(usage)),
        root_(MakeRef<Directory>(*this, 0555)) {
    Text("cgroup.controllers", "cpu memory pids");
    Text("cgroup.subtree_control", "");
    Text("cgroup.type", "domain");
    Text("cgroup.events", "populated 1\nfrozen 0");
    Text("cgroup.max.depth", "0");
    Text("cgroup.max.descendants", "0");

    constexpr uint64_t kPeriod = 100'000;  // cgroup-v2.rst, "cpu.max"
    Text("cpu.max", fmt::format("{} {}", OrMax(limits.cpu_quota), limits.cpu_period.value_or(kPeriod)));
    Text("cpu.weight", "100");
    Live("cpu.stat", [this] {
      const uint64_t user = usage_.cpu_user_ns() / 1000, system = usage_.cpu_system_ns() / 1000;
      return fmt::format("usage_usec {}\nuser_usec {}\nsystem_usec {}", user + system, user, system);
    });

    // The kernel counts pages: what is left over of one is no use.
    std::optional<uint64_t> memory = limits.memory;
    if (memory) memory = PageRoundDown(*memory);
    Text("memory.max", OrMax(memory));
    Text("memory.high", "max");
    Text("memory.min", "0");
    Text("memory.low", "0");
    Text("memory.swap.max", "0");
    Text("memory.swap.current", "0");
    Live("memory.current", [this] { return std::to_string(usage_.memory()); });

    Text("pids.max", OrMax(limits.pids));
    Live("pids.current", [this] { return std::to_string(usage_.pids()); });
  }
  RefPtr<vfs::Inode> root() override { return root_; }

 private:
  void Text(std::string name, std::string text) {
    synthetic::AddText(*root_, std::move(name), text.empty() ? "" : std::move(text) + "\n");
  }
  template <typename F>
  void Live(std::string name, F text) {
    auto generate = [text = std::move(text)]() -> Result<std::string> { return text() + "\n"; };
    root_->Add(std::move(name), MakeRef<FunctionFile>(*this, 0444, std::move(generate)));
  }

  const Usage usage_;
  const RefPtr<Directory> root_;
};

}  // namespace

RefPtr<vfs::Filesystem> Create(const Limits& limits, Usage usage) {
  return MakeRef<CgroupFilesystem>(limits, std::move(usage));
}

}  // namespace redoubt::cgroup

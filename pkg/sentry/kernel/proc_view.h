// The process tree as procfs sees it: proc::KernelView for one PID namespace of a Kernel.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_PROC_VIEW_H_
#define REDOUBT_PKG_SENTRY_KERNEL_PROC_VIEW_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/proc/kernel_view.h"
#include "pkg/sentry/kernel/kernel.h"

namespace redoubt::kernel {

class ProcView final : public proc::KernelView {
 public:
  using NetTables = std::function<std::string(std::string_view)>;
  using NetSettings = std::function<std::optional<NetSetting>(std::string_view)>;
  // `filesystems`: the types that mount(2) knows. `net_tables`: KernelView::NetTable, `net_settings`: FindNetSetting;
  // none without a network.
  // `ns` null: the outermost.
  ProcView(Kernel& kernel, RefPtr<PidNamespace> ns, std::function<std::vector<std::string>()> filesystems,
           NetTables net_tables = {}, NetSettings net_settings = {})
      : kernel_(kernel),
        ns_(ns ? std::move(ns) : RefPtr<PidNamespace>(&kernel.root_pid_ns())),
        filesystems_(std::move(filesystems)),
        net_tables_(std::move(net_tables)),
        net_settings_(std::move(net_settings)) {}

  std::vector<int> Processes() override;
  std::vector<int> Threads(int tgid) override;
  proc::TaskHandle Find(int tid) override;
  proc::TaskHandle Current() override;
  bool GetInfo(RefCounted& task, bool whole_process, proc::TaskInfo* info) override;
  RefPtr<mm::MemoryManager> GetMemory(RefCounted& task) override;
  RefPtr<FdTable> GetFds(RefCounted& task) override;
  proc::TaskPlaces GetPlaces(RefCounted& task) override;
  std::array<limits::Limit, RLIM_NLIMITS> GetLimits(RefCounted& task) override;
  Result<> CheckAccess(RefCounted& task) override;
  Result<> SetName(RefCounted& task, std::string name) override;
  Result<> SetOomScoreAdj(RefCounted& task, int value) override;
  uint64_t NamespaceId(RefCounted& task, std::string_view kind) override;
  RefPtr<RefCounted> Namespace(RefCounted& task, std::string_view kind) override;
  proc::SystemInfo GetSystemInfo() override;
  std::string Release() override { return std::string(kRelease); }
  std::string Version() override { return std::string(kVersion); }
  std::string Hostname() override { return kernel_.hostname(); }
  std::string Domainname() override { return kernel_.domainname(); }
  Result<> SetHostname(std::string name) override;
  Result<> SetDomainname(std::string name) override;
  std::vector<std::string> Filesystems() override;
  std::string NetTable(std::string_view name) override { return net_tables_ ? net_tables_(name) : std::string(); }
  std::optional<NetSetting> FindNetSetting(std::string_view name) override {
    return net_settings_ ? net_settings_(name) : std::nullopt;
  }

 private:
  Kernel& kernel_;
  const RefPtr<PidNamespace> ns_;
  const std::function<std::vector<std::string>()> filesystems_;
  const NetTables net_tables_;
  const NetSettings net_settings_;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_PROC_VIEW_H_

#include "pkg/sentry/fsimpl/sys/sys.h"

#include <fmt/format.h>
#include <linux/magic.h>

#include <algorithm>
#include <utility>

#include "pkg/sentry/fsimpl/synthetic/synthetic.h"

namespace redoubt::sys {

namespace {

using synthetic::Directory;

class SysFilesystem final : public synthetic::SyntheticFilesystem {
 public:
  explicit SysFilesystem(const Options& options)
      : SyntheticFilesystem("sysfs", SYSFS_MAGIC), root_(MakeRef<Directory>(*this, 0755)) {
    for (const char* name : {"block", "bus", "dev", "firmware", "module", "power"}) Dir(*root_, name);
    Directory& devices = Dir(*root_, "devices");
    Directory& system = Dir(devices, "system");
    AddCpus(Dir(system, "cpu"), options.cpus);
    AddNode(Dir(system, "node"), options);
    AddNet(Dir(Dir(devices, "virtual"), "net"), Dir(Dir(*root_, "class"), "net"), options);
    Dir(Dir(*root_, "fs"), "cgroup");
    AddKernel(Dir(*root_, "kernel"));
  }
  RefPtr<vfs::Inode> root() override { return root_; }

 private:
  Directory& Dir(Directory& parent, std::string name) {
    RefPtr<Directory> d = MakeRef<Directory>(*this, 0755);
    parent.Add(std::move(name), d);
    return *d;  // the parent holds it
  }
  static void Text(Directory& d, std::string name, std::string text) {
    // A page, as every attribute of sysfs claims.
    synthetic::AddText(d, std::move(name), std::move(text) + "\n", 0444, 4096);
  }
  static std::string List(int count) { return count == 1 ? "0" : fmt::format("0-{}", count - 1); }
  static std::string Mask(int count) {
    std::string s;
    for (int word = (count - 1) / 32; word >= 0; word--) {
      const int bits = std::min(count - word * 32, 32);
      const uint32_t mask = bits == 32 ? ~uint32_t{0} : (uint32_t{1} << bits) - 1;
      s += s.empty() ? fmt::format("{:x}", mask) : fmt::format(",{:08x}", mask);
    }
    return s;
  }

  void AddCpus(Directory& cpu, int count) {
    for (const char* name : {"online", "possible", "present"}) Text(cpu, name, List(count));
    Text(cpu, "offline", "");
    Text(cpu, "isolated", "");
    Text(cpu, "kernel_max", "8191");
    for (int i = 0; i < count; i++) {
      Directory& one = Dir(cpu, fmt::format("cpu{}", i));
      // The first cannot be taken off line, and so has no switch.
      if (i > 0) Text(one, "online", "1");
      Directory& topology = Dir(one, "topology");
      Text(topology, "core_id", std::to_string(i));
      Text(topology, "physical_package_id", "0");
      Text(topology, "core_siblings_list", List(count));
      Text(topology, "core_siblings", Mask(count));
      Text(topology, "package_cpus_list", List(count));
      Text(topology, "thread_siblings_list", std::to_string(i));
      Text(topology, "core_cpus_list", std::to_string(i));
    }
  }

  void AddNode(Directory& node, const Options& options) {
    for (const char* name : {"online", "possible", "has_cpu", "has_memory", "has_normal_memory"}) Text(node, name, "0");
    Directory& zero = Dir(node, "node0");
    Text(zero, "cpulist", List(options.cpus));
    Text(zero, "cpumap", Mask(options.cpus));
    Text(zero, "distance", "10");
    Text(
        zero, "meminfo",
        fmt::format("Node 0 MemTotal:       {0:8} kB\nNode 0 MemFree:        {0:8} kB\nNode 0 MemUsed:        {1:8} kB",
                    options.memory / 1024, 0));
  }

  void AddNet(Directory& devices, Directory& by_class, const Options& options) {
    for (const NetDevice& n : options.devices) {
      Directory& d = Dir(devices, n.name);
      Text(d, "address", n.address);
      Text(d, "broadcast", n.type == 1 ? "ff:ff:ff:ff:ff:ff" : "00:00:00:00:00:00");
      Text(d, "addr_len", "6");
      Text(d, "carrier", "1");
      Text(d, "dev_id", "0x0");
      Text(d, "flags", fmt::format("0x{:x}", n.flags));
      Text(d, "ifindex", std::to_string(n.index));
      Text(d, "iflink", std::to_string(n.index));
      Text(d, "mtu", std::to_string(n.mtu));
      Text(d, "operstate", n.type == 772 ? "unknown" : "up");
      Text(d, "tx_queue_len", "1000");
      Text(d, "type", std::to_string(n.type));
      Directory& statistics = Dir(d, "statistics");
      for (const char* name :
           {"rx_bytes", "rx_dropped", "rx_errors", "rx_packets", "tx_bytes", "tx_dropped", "tx_errors", "tx_packets"}) {
        Text(statistics, name, "0");
      }
      by_class.Add(n.name, MakeRef<synthetic::FixedSymlink>(*this, "../../devices/virtual/net/" + n.name));
    }
  }

  void AddKernel(Directory& kernel) {
    Text(kernel, "uevent_seqnum", "1");
    Text(kernel, "profiling", "0");
    Dir(kernel, "debug");
    Dir(kernel, "security");
    Dir(kernel, "tracing");
    Directory& mm = Dir(kernel, "mm");
    Directory& huge = Dir(mm, "transparent_hugepage");
    Text(huge, "enabled", "always madvise [never]");
    Text(huge, "defrag", "always defer defer+madvise madvise [never]");
    Text(huge, "hpage_pmd_size", "2097152");
    Dir(mm, "hugepages");
  }

  const RefPtr<Directory> root_;
};

}  // namespace

RefPtr<vfs::Filesystem> Create(const Options& options) { return MakeRef<SysFilesystem>(options); }

}  // namespace redoubt::sys

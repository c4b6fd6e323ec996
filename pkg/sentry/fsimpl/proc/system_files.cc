// The files of /proc about the whole system.
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "pkg/sentry/fsimpl/proc/filesystem.h"
#include "pkg/sentry/fsimpl/proc/proc.h"
#include "pkg/sentry/vfs/device.h"

namespace redoubt::proc {

namespace {

constinit std::atomic<SysvipcTable> sysvipc_table{nullptr};

constexpr std::pair<const char*, std::string_view> kSysvipc[] = {
    {"msg",
     "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
     "      stime      rtime      ctime\n"},
    {"sem", "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"},
    {"shm",
     "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
     "      atime      dtime      ctime                   rss                  swap\n"},
};

// Those of the unified hierarchy, number 0, that a cgroup2 mount inside shows. cpuset and cpuacct are not in its
// cgroup.controllers, but programs that take one of them to be missing look for no limits at all.
constexpr const char* kCgroups =
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\ncpuacct\t0\t1\t1\n"
    "memory\t0\t1\t1\npids\t0\t1\t1\n";

constexpr uint64_t kNsPerTick = 10'000'000;

std::string Meminfo(KernelView& view) {
  const SystemInfo i = view.GetSystemInfo();
  const uint64_t cached = std::min(i.memory_cached, i.memory_total - std::min(i.memory_total, i.memory_free));
  const uint64_t used = i.memory_total - std::min(i.memory_total, i.memory_free + cached);
  std::string s;
  auto kb = [&s](std::string_view name, uint64_t bytes) {
    s += fmt::format("{:<16}{:8} kB\n", std::string(name) + ":", bytes / 1024);
  };
  kb("MemTotal", i.memory_total);
  kb("MemFree", i.memory_free);
  kb("MemAvailable", i.memory_free + cached);
  kb("Buffers", 0);
  kb("Cached", cached);
  kb("SwapCached", 0);
  kb("Active", used);
  kb("Inactive", cached);
  kb("Active(anon)", used);
  kb("Inactive(anon)", 0);
  kb("Active(file)", 0);
  kb("Inactive(file)", cached);
  kb("Unevictable", 0);
  kb("Mlocked", 0);
  kb("SwapTotal", 0);
  kb("SwapFree", 0);
  kb("Dirty", 0);
  kb("Writeback", 0);
  kb("AnonPages", used);
  kb("Mapped", cached);
  kb("Shmem", 0);
  kb("KReclaimable", 0);
  kb("Slab", 0);
  kb("SReclaimable", 0);
  kb("SUnreclaim", 0);
  kb("KernelStack", 0);
  kb("PageTables", 0);
  kb("CommitLimit", i.memory_total / 2);
  kb("Committed_AS", used);
  kb("VmallocTotal", uint64_t{34359738367} * 1024);
  kb("VmallocUsed", 0);
  kb("VmallocChunk", 0);
  s += "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n";
  kb("Hugepagesize", 2 << 20);
  kb("Hugetlb", 0);
  return s;
}

std::string Stat(KernelView& view) {
  const SystemInfo i = view.GetSystemInfo();
  auto line = [&](std::string_view name, uint64_t divide) {
    return fmt::format("{} {} 0 {} {} 0 0 0 0 0 0\n", name, i.user_ns / kNsPerTick / divide,
                       i.system_ns / kNsPerTick / divide, i.idle_ns / kNsPerTick / divide);
  };
  // "cpu" has two spaces after it.
  std::string s = line("cpu ", 1);
  for (int c = 0; c < i.cpus; c++) s += line(fmt::format("cpu{}", c), static_cast<uint64_t>(i.cpus));
  s += fmt::format("intr 0\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\n", i.context_switches,
                   i.boot_time / 1'000'000'000, i.forks, i.running);
  s += "softirq 0 0 0 0 0 0 0 0 0 0 0\n";
  return s;
}

std::string Uptime(KernelView& view) {
  const SystemInfo i = view.GetSystemInfo();
  auto seconds = [](int64_t ns) { return fmt::format("{}.{:02}", ns / 1'000'000'000, ns / 10'000'000 % 100); };
  return seconds(i.uptime) + " " + seconds(static_cast<int64_t>(i.idle_ns)) + "\n";
}

std::string Loadavg(KernelView& view) {
  const SystemInfo i = view.GetSystemInfo();
  return fmt::format("{:.2f} {:.2f} {:.2f} {}/{} {}\n", i.load[0], i.load[1], i.load[2], i.running, i.tasks,
                     i.last_pid);
}

std::string Vmstat(KernelView& view) {
  const SystemInfo i = view.GetSystemInfo();
  return fmt::format(
      "nr_free_pages {}\nnr_file_pages {}\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\n",
      i.memory_free / 4096, i.memory_cached / 4096);
}

std::string Devices() {
  std::string s = "Character devices:\n";
  for (const vfs::DeviceInfo& d : vfs::CharDevices()) s += fmt::format("{:3} {}\n", d.major, d.name);
  s += "\nBlock devices:\n";
  return s;
}

}  // namespace

std::string RandomUuid() {
  uint8_t b[16];
  // Made by the file's own rules: version 4, variant 1.
  if (::getrandom(b, sizeof(b), 0) != static_cast<ssize_t>(sizeof(b))) std::memset(b, 0, sizeof(b));
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  std::string s;
  for (int i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) s += '-';
    s += fmt::format("{:02x}", b[i]);
  }
  return s;
}

void SetSysvipcTable(SysvipcTable table) { sysvipc_table.store(table); }

void AddSystemFiles(ProcFilesystem& fs, synthetic::Directory& root) {
  KernelView* view = &fs.view();
  auto add = [&](const char* name, auto text, uint32_t permissions = 0444) {
    root.Add(name, MakeRef<synthetic::FunctionFile>(fs, permissions,
                                                    [view, text]() -> Result<std::string> { return text(*view); }));
  };
  add("cmdline", [](KernelView&) { return std::string("BOOT_IMAGE=/vmlinuz quiet\n"); });
  add("cpuinfo", [](KernelView& v) {
    const int cpus = v.GetSystemInfo().cpus;
    std::string s;
    for (int i = 0; i < cpus; i++) s += FormatCpu(i, cpus);
    return s;
  });
  add("devices", [](KernelView&) { return Devices(); });
  add("filesystems", [](KernelView& v) {
    std::string s;
    for (const std::string& line : v.Filesystems())
      s += (line.find('\t') == std::string::npos ? "\t" : "") + line + "\n";
    return s;
  });
  add("loadavg", Loadavg);
  add("meminfo", Meminfo);
  add("stat", Stat);
  add("uptime", Uptime);
  add("vmstat", Vmstat);
  add("version",
      [](KernelView& v) { return fmt::format("Linux version {} (redoubt) {}\n", v.Release(), v.Version()); });
  add("swaps", [](KernelView&) { return std::string("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"); });
  add("partitions", [](KernelView&) { return std::string("major minor  #blocks  name\n\n"); });
  add("modules", [](KernelView&) { return std::string(); });
  add("misc", [](KernelView&) { return std::string(); });
  add("diskstats", [](KernelView&) { return std::string(); });
  add("cgroups", [](KernelView&) { return std::string(kCgroups); });
  add("interrupts", [](KernelView& v) {
    std::string s = "           ";
    for (int i = 0; i < v.GetSystemInfo().cpus; i++) s += fmt::format("CPU{:<8}", i);
    return s + "\n";
  });
  auto sysvipc = MakeRef<synthetic::Directory>(fs);
  for (auto [kind, heading] : kSysvipc) {
    sysvipc->Add(kind, MakeRef<synthetic::FunctionFile>(fs, 0444, [view, kind, heading]() -> Result<std::string> {
                   std::string text(heading);
                   const TaskHandle reader = view->Current();
                   if (SysvipcTable table = sysvipc_table.load(); table != nullptr && reader) {
                     text += table(*reader, kind);
                   }
                   return text;
                 }));
  }
  root.Add("sysvipc", sysvipc);
  // Where Linux's own file systems of these names are mounted on.
  root.Add("fs", MakeRef<synthetic::Directory>(fs));
}

RefPtr<synthetic::Directory> MakeNetDirectory(ProcFilesystem& fs) {
  RefPtr<synthetic::Directory> net = MakeRef<synthetic::Directory>(fs);
  struct Table {
    const char* name;
    const char* heading;
  };
  static constexpr Table kTables[] = {
      {"arp", "IP address       HW type     Flags       HW address            Mask     Device\n"},
      {"dev",
       "Inter-|   Receive                                                |  Transmit\n"
       " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls "
       "carrier compressed\n"},
      {"if_inet6", ""},
      {"netlink", "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"},
      {"packet", "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n"},
      {"protocols",
       "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha "
       "uh gp em\n"},
      {"raw",
       "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer "
       "drops\n"},
      {"route",
       "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                            "
       "                           \n"},
      {"ipv6_route", ""},
      {"snmp", ""},
      {"sockstat", "sockets: used 0\n"},
      {"tcp",
       "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode               "
       "                                      \n"},
      {"tcp6",
       "  sl  local_address                         remote_address                        st tx_queue rx_queue tr "
       "tm->when retrnsmt   uid  timeout inode\n"},
      {"udp",
       "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer "
       "drops             \n"},
      {"udp6",
       "  sl  local_address                         remote_address                        st tx_queue rx_queue tr "
       "tm->when retrnsmt   uid  timeout inode ref pointer drops\n"},
      {"unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"},
      {"wireless",
       "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level "
       "noise |  nwid  crypt   frag  retry   misc | beacon | 22\n"},
  };
  KernelView* view = &fs.view();
  for (const Table& t : kTables) {
    net->Add(t.name, MakeRef<synthetic::FunctionFile>(
                         fs, 0444, [view, t]() -> Result<std::string> { return t.heading + view->NetTable(t.name); }));
  }
  return net;
}

uint64_t KernelView::NamespaceId(RefCounted&, std::string_view kind) {
  // Linux's numbers of the first namespaces.
  constexpr std::pair<std::string_view, uint64_t> kIds[] = {
      {"time", 4026531834}, {"cgroup", 4026531835}, {"pid", 4026531836}, {"user", 4026531837},
      {"uts", 4026531838},  {"ipc", 4026531839},    {"net", 4026531840}, {"mnt", 4026531841},
  };
  for (const auto& [name, id] : kIds) {
    if (name == kind.substr(0, kind.find('_'))) return id;
  }
  return 0;
}

ProcFilesystem::ProcFilesystem(std::shared_ptr<KernelView> view)
    : SyntheticFilesystem("proc", PROC_SUPER_MAGIC),
      view_(std::move(view)),
      boot_id_(RandomUuid()),
      net_(MakeNetDirectory(*this)),
      root_(MakeRoot(*this)) {}

RefPtr<vfs::Filesystem> Create(std::shared_ptr<KernelView> view) { return MakeRef<ProcFilesystem>(std::move(view)); }

}  // namespace redoubt::proc

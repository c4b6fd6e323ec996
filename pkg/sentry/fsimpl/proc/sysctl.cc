// /proc/sys: what programs ask of it, from the kernel or kept here.
#include <fmt/format.h>
#include <linux/capability.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <memory>
#include <utility>

#include "pkg/sentry/fsimpl/proc/filesystem.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::proc {

namespace {

using synthetic::Directory;
using synthetic::FunctionFile;

class Builder {
 public:
  explicit Builder(ProcFilesystem& fs) : fs_(fs) {}

  RefPtr<Directory> Dir(Directory* parent, const char* name) {
    RefPtr<Directory> d = MakeRef<Directory>(fs_);
    if (parent != nullptr) parent->Add(name, d);
    return d;
  }
  void Text(Directory& d, const char* name, std::string text) { synthetic::AddText(d, name, text + "\n"); }
  // A limit that is obeyed.
  void Limit(Directory& d, const char* name, std::atomic<int64_t>& limit, int64_t min, int64_t max) {
    d.Add(name, MakeRef<FunctionFile>(
                    fs_, 0644, [&limit]() -> Result<std::string> { return fmt::format("{}\n", limit.load()); },
                    [&limit, min, max](std::string_view text) { return Store(text, min, max, limit); }));
  }
  // Read back as written; nothing here obeys it.
  void Number(Directory& d, const char* name, int64_t value, int64_t min = 0, int64_t max = INT64_MAX) {
    auto stored = std::make_shared<std::atomic<int64_t>>(value);
    d.Add(name, MakeRef<FunctionFile>(
                    fs_, 0644, [stored]() -> Result<std::string> { return fmt::format("{}\n", stored->load()); },
                    [stored, min, max](std::string_view text) { return Store(text, min, max, *stored); }));
  }
  // Obeyed where there is a network.
  void Setting(Directory& d, const char* name, std::string_view setting, int64_t value, int64_t min, int64_t max) {
    std::optional<KernelView::NetSetting> s = fs_.view().FindNetSetting(setting);
    if (!s) return Number(d, name, value, min, max);
    d.Add(name, MakeRef<FunctionFile>(
                    fs_, 0644, [get = s->get]() -> Result<std::string> { return fmt::format("{}\n", get()); },
                    [set = s->set, min, max](std::string_view text) -> Result<> {
                      std::atomic<int64_t> number;
                      TRY(Store(text, min, max, number));
                      set(number.load());
                      return {};
                    }));
  }
  void Function(Directory& d, const char* name, uint32_t permissions, FunctionFile::Generator g,
                FunctionFile::Storer s = nullptr) {
    d.Add(name, MakeRef<FunctionFile>(fs_, permissions, std::move(g), std::move(s)));
  }

 private:
  static Result<> Store(std::string_view text, int64_t min, int64_t max, std::atomic<int64_t>& to) {
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    int64_t v = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (error != std::errc() || end != text.data() + text.size() || v < min || v > max) return Err(EINVAL);
    to.store(v);
    return {};
  }

  ProcFilesystem& fs_;
};

std::string FirstLine(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

void AddKernel(ProcFilesystem& fs, Builder& b, Directory& sys) {
  KernelView* view = &fs.view();
  limits::System& system = limits::System::Get();
  RefPtr<Directory> kernel = b.Dir(&sys, "kernel");
  b.Text(*kernel, "ostype", "Linux");
  b.Text(*kernel, "osrelease", view->Release());
  b.Text(*kernel, "version", view->Version());
  b.Function(
      *kernel, "hostname", 0644, [view]() -> Result<std::string> { return view->Hostname() + "\n"; },
      [view](std::string_view text) { return view->SetHostname(FirstLine(text)); });
  b.Function(
      *kernel, "domainname", 0644, [view]() -> Result<std::string> { return view->Domainname() + "\n"; },
      [view](std::string_view text) { return view->SetDomainname(FirstLine(text)); });
  b.Function(*kernel, "pid_max", 0444,
             [view]() -> Result<std::string> { return fmt::format("{}\n", view->GetSystemInfo().pid_max); });
  b.Text(*kernel, "cap_last_cap", std::to_string(CAP_LAST_CAP));
  b.Text(*kernel, "ngroups_max", "65536");
  b.Limit(*kernel, "threads-max", system.threads_max, 1, limits::System::kMostThreads);
  b.Number(*kernel, "overflowuid", 65534, 0, 65535);
  b.Number(*kernel, "overflowgid", 65534, 0, 65535);
  b.Number(*kernel, "shmmax", INT64_MAX);
  b.Number(*kernel, "shmall", INT64_MAX);
  b.Number(*kernel, "shmmni", 4096);
  b.Limit(*kernel, "msgmax", system.msgmax, 0, limits::System::kMostOfMessage);
  b.Limit(*kernel, "msgmnb", system.msgmnb, 0, INT32_MAX);
  b.Limit(*kernel, "msgmni", system.msgmni, 0, 32768);
  b.Function(*kernel, "sem", 0444, [&system]() -> Result<std::string> {
    return fmt::format("32000\t{}\t500\t32000\n", system.semmns.load());
  });
  b.Text(*kernel, "core_pattern", "core");
  b.Number(*kernel, "core_uses_pid", 0, 0, 1);
  b.Number(*kernel, "randomize_va_space", 2, 0, 2);
  b.Number(*kernel, "dmesg_restrict", 0, 0, 1);
  b.Number(*kernel, "kptr_restrict", 0, 0, 2);
  b.Number(*kernel, "perf_event_paranoid", 2, -1, 4);
  b.Number(*kernel, "unprivileged_userns_clone", 0, 0, 1);
  b.Number(*kernel, "sched_child_runs_first", 0, 0, 1);
  b.Number(*kernel, "panic", 0);
  b.Number(*kernel, "sysrq", 0);
  b.Text(*kernel, "tainted", "0");
  b.Text(*kernel, "printk", "4\t4\t1\t7");
  RefPtr<Directory> random = b.Dir(kernel.get(), "random");
  b.Text(*random, "boot_id", fs.boot_id());
  b.Function(*random, "uuid", 0444, []() -> Result<std::string> { return RandomUuid() + "\n"; });
  b.Text(*random, "entropy_avail", "256");
  b.Text(*random, "poolsize", "256");
  RefPtr<Directory> yama = b.Dir(kernel.get(), "yama");
  b.Number(*yama, "ptrace_scope", 0, 0, 3);
  RefPtr<Directory> seccomp = b.Dir(kernel.get(), "seccomp");
  b.Text(*seccomp, "actions_avail", "kill_process kill_thread trap errno user_notif trace log allow");
}

void AddVm(Builder& b, Directory& sys) {
  RefPtr<Directory> vm = b.Dir(&sys, "vm");
  b.Number(*vm, "overcommit_memory", 0, 0, 2);
  b.Number(*vm, "overcommit_ratio", 50);
  b.Limit(*vm, "max_map_count", limits::System::Get().max_map_count, 0, INT32_MAX);
  b.Number(*vm, "mmap_min_addr", 65536);
  b.Number(*vm, "swappiness", 60, 0, 200);
  b.Number(*vm, "min_free_kbytes", 4096);
  b.Number(*vm, "dirty_ratio", 20, 0, 100);
  b.Number(*vm, "dirty_background_ratio", 10, 0, 100);
  b.Number(*vm, "vfs_cache_pressure", 100);
  b.Number(*vm, "nr_hugepages", 0, 0, 0);
  b.Number(*vm, "panic_on_oom", 0, 0, 2);
  b.Number(*vm, "oom_kill_allocating_task", 0);
  b.Number(*vm, "drop_caches", 0, 1, 4);
}

void AddFs(Builder& b, Directory& sys) {
  limits::System& system = limits::System::Get();
  RefPtr<Directory> fs = b.Dir(&sys, "fs");
  b.Limit(*fs, "file-max", system.file_max, 0, INT64_MAX);
  b.Function(*fs, "file-nr", 0444, [&system]() -> Result<std::string> {
    return fmt::format("{}\t0\t{}\n", vfs::FileDescription::Count(), system.file_max.load());
  });
  b.Number(*fs, "nr_open", 1 << 20);
  b.Text(*fs, "inode-nr", "0\t0");
  b.Number(*fs, "aio-max-nr", 65536);
  b.Number(*fs, "aio-nr", 0, 0, 0);
  b.Limit(*fs, "pipe-max-size", system.pipe_max_size, 4096, 1 << 20);
  b.Limit(*fs, "pipe-user-pages-soft", system.pipe_user_pages_soft, 0, INT64_MAX);
  b.Limit(*fs, "pipe-user-pages-hard", system.pipe_user_pages_hard, 0, INT64_MAX);
  b.Number(*fs, "protected_hardlinks", 0, 0, 1);
  b.Number(*fs, "protected_symlinks", 0, 0, 1);
  b.Number(*fs, "protected_fifos", 0, 0, 2);
  b.Number(*fs, "protected_regular", 0, 0, 2);
  b.Number(*fs, "suid_dumpable", 0, 0, 2);
  b.Number(*fs, "lease-break-time", 45);
  b.Limit(*fs, "mount-max", system.mount_max, 1, INT32_MAX);
  RefPtr<Directory> inotify = b.Dir(fs.get(), "inotify");
  b.Limit(*inotify, "max_queued_events", system.inotify_max_events, 0, INT32_MAX);
  b.Limit(*inotify, "max_user_instances", system.inotify_max_instances, 0, INT32_MAX);
  b.Limit(*inotify, "max_user_watches", system.inotify_max_watches, 0, INT32_MAX);
  RefPtr<Directory> mqueue = b.Dir(fs.get(), "mqueue");
  b.Limit(*mqueue, "queues_max", system.mq_queues_max, 0, limits::System::kMostQueues);
  b.Limit(*mqueue, "msg_max", system.mq_msg_max, 1, 65536);
  b.Limit(*mqueue, "msgsize_max", system.mq_msgsize_max, 128, 16 << 20);
  b.Limit(*mqueue, "msg_default", system.mq_msg_default, 1, 65536);
  b.Limit(*mqueue, "msgsize_default", system.mq_msgsize_default, 128, 16 << 20);
  RefPtr<Directory> epoll = b.Dir(fs.get(), "epoll");
  b.Limit(*epoll, "max_user_watches", system.epoll_max_user_watches, 0, INT64_MAX);
}

// namespaces(7). Of the kinds that can be made inside; mount namespaces are bounded by their mounts.
void AddUser(Builder& b, Directory& sys) {
  RefPtr<Directory> user = b.Dir(&sys, "user");
  b.Limit(*user, "max_pid_namespaces", limits::System::Get().max_pid_namespaces, 0, INT32_MAX);
}

void AddNet(Builder& b, Directory& sys) {
  RefPtr<Directory> net = b.Dir(&sys, "net");
  RefPtr<Directory> core = b.Dir(net.get(), "core");
  b.Number(*core, "somaxconn", 4096, 0, INT32_MAX);
  b.Number(*core, "rmem_default", 212992);
  b.Number(*core, "rmem_max", 212992);
  b.Number(*core, "wmem_default", 212992);
  b.Number(*core, "wmem_max", 212992);
  b.Number(*core, "netdev_max_backlog", 1000);
  b.Number(*core, "optmem_max", 131072);
  RefPtr<Directory> unix_dir = b.Dir(net.get(), "unix");
  b.Number(*unix_dir, "max_dgram_qlen", 512);
  RefPtr<Directory> ipv4 = b.Dir(net.get(), "ipv4");
  b.Text(*ipv4, "ip_local_port_range", "32768\t60999");
  b.Text(*ipv4, "tcp_rmem", "4096\t131072\t6291456");
  b.Text(*ipv4, "tcp_wmem", "4096\t16384\t4194304");
  b.Text(*ipv4, "tcp_available_congestion_control", "reno cubic");
  b.Text(*ipv4, "tcp_congestion_control", "cubic");
  b.Text(*ipv4, "ping_group_range", "1\t0");
  b.Number(*ipv4, "ip_forward", 0, 0, 1);
  b.Number(*ipv4, "ip_nonlocal_bind", 0, 0, 1);
  b.Number(*ipv4, "ip_unprivileged_port_start", 1024, 0, 65535);
  b.Number(*ipv4, "tcp_fin_timeout", 60);
  b.Number(*ipv4, "tcp_keepalive_time", 7200);
  b.Number(*ipv4, "tcp_keepalive_intvl", 75);
  b.Number(*ipv4, "tcp_keepalive_probes", 9);
  b.Number(*ipv4, "tcp_max_syn_backlog", 1024);
  b.Number(*ipv4, "tcp_sack", 1, 0, 1);
  b.Number(*ipv4, "tcp_timestamps", 1, 0, 2);
  b.Number(*ipv4, "tcp_tw_reuse", 2, 0, 2);
  b.Setting(*ipv4, "tcp_fastopen", "ipv4/tcp_fastopen", 1, 0, 0xff);
  b.Number(*ipv4, "tcp_syncookies", 1, 0, 2);
}

}  // namespace

RefPtr<Directory> MakeSysDirectory(ProcFilesystem& fs) {
  Builder b(fs);
  RefPtr<Directory> sys = b.Dir(nullptr, "sys");
  AddKernel(fs, b, *sys);
  AddVm(b, *sys);
  AddFs(b, *sys);
  AddUser(b, *sys);
  AddNet(b, *sys);
  return sys;
}

}  // namespace redoubt::proc

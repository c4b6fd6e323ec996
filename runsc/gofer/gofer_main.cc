#include "runsc/gofer/gofer_main.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <latch>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "pkg/gofer/filter.h"
#include "pkg/gofer/server.h"
#include "pkg/log/log.h"
#include "runsc/box/box.h"
#include "runsc/sandbox/layout.h"

namespace redoubt::gofer {

int GoferMain(int argc, char** argv) {
  log::SetProcessName("gofer");
  prctl(PR_SET_NAME, "runsc-gofer");
  struct Served {
    std::unique_ptr<Server> server;
    int socket;
  };
  std::vector<Served> served;
  // As many files open as the host allows: each cached name of the Sentry holds one.
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<box::Tree> trees;
  box::Options options{.allow_weak = std::string_view(argv[0]) == "gofer-weak",
                       .first_closed = sandbox::kGoferReasonFd + 1};
  for (int i = 1; i + 2 < argc; i += 3) {
    const std::string_view word = argv[i];
    if (word == "owner") {
      options.owner_uid = std::atoll(argv[i + 1]);
      options.owner_gid = std::atoll(argv[i + 2]);
    } else if (word == "userns") {
      options.ids = {.uids = argv[i + 1], .gids = argv[i + 2]};
    } else if (word == "as") {
      options.uid = static_cast<uid_t>(std::strtoul(argv[i + 1], nullptr, 10));
      options.gid = static_cast<gid_t>(std::strtoul(argv[i + 2], nullptr, 10));
    } else if (word == "idmap" || word == "ridmap") {
      // Of the tree before it.
      trees.back().ids = {.uids = argv[i + 1], .gids = argv[i + 2]};
      trees.back().maps_all = word == "ridmap";
    } else {
      box::Tree& tree = trees.emplace_back();
      tree.path = argv[i + 1];
      tree.read_only = word == "ro";
      served.push_back({.server = nullptr, .socket = std::atoi(argv[i + 2])});
      options.first_closed = std::max(options.first_closed, served.back().socket + 1);
    }
  }
  int self = -1;
  auto missing = box::EnterGoferBox(options, trees, self);
  if (!missing) {
    fmt::print(stderr, "runsc: gofer: {}\n", missing.error());
    (void)!write(sandbox::kGoferReasonFd, missing.error().data(), missing.error().size());
    return 1;
  }
  close(sandbox::kGoferReasonFd);
  for (const std::string& wall : *missing) LOG_ERROR("--allow-weak-box: the gofer goes without: {}", wall);
  for (size_t i = 0; i < trees.size(); i++) {
    served[i].server = std::make_unique<Server>(UniqueFd(trees[i].fd), UniqueFd(fcntl(self, F_DUPFD_CLOEXEC, 0)),
                                                Options{.read_only = trees[i].read_only, .works_in_self_fd = true});
  }
  umask(0);
  // The main thread is filtered too: what the others can write, its stack included, must not lead past the filter.
  PrepareForFilter(served.size());
  const auto count = static_cast<ptrdiff_t>(served.size());
  std::latch started(count), filtered(1), finished(count), never(1);
  std::vector<std::thread> threads;
  for (Served& s : served) {
    threads.emplace_back([&] {
      started.count_down();
      filtered.wait();
      if (Result<> r = s.server->Serve(s.socket); !r) LOG_ERROR("connection closed: {}", r.error().name());
      close(s.socket);
      // All end together: a thread's own end would be some calls more for the filter to allow.
      finished.count_down();
      never.wait();
    });
  }
  started.wait();
  if (Result<> r = InstallFilter(); !r) {
    fmt::print(stderr, "runsc: gofer: cannot install the system-call filter: {}\n", r.error().name());
    _exit(1);
  }
  filtered.count_down();
  finished.wait();
  _exit(0);
}

}  // namespace redoubt::gofer

#include "runsc/gofer/gofer_main.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "pkg/gofer/filter.h"
#include "pkg/gofer/server.h"
#include "pkg/log/log.h"

namespace redoubt::gofer {

int GoferMain(int argc, char** argv) {
  log::SetProcessName("gofer");
  prctl(PR_SET_NAME, "runsc-gofer");
  struct Tree {
    std::unique_ptr<Server> server;
    int socket;
  };
  std::vector<Tree> trees;
  // As many files open as the host allows: each cached name of the Sentry holds one.
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 1; i + 2 < argc; i += 3) {
    const char* path = argv[i + 1];
    UniqueFd root(open(path, O_PATH | O_CLOEXEC));
    if (!root) {
      fmt::print(stderr, "runsc: cannot serve {}: {}\n", path, std::strerror(errno));
      return 1;
    }
    UniqueFd self(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!self) {
      fmt::print(stderr, "runsc: /proc/self/fd: {}; the gofer needs /proc mounted on the host\n", std::strerror(errno));
      return 1;
    }
    Options options;
    options.read_only = std::string_view(argv[i]) == "ro";
    trees.push_back({std::make_unique<Server>(std::move(root), std::move(self), options), std::atoi(argv[i + 2])});
  }
  umask(0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 1;
  std::vector<std::thread> threads;
  for (Tree& tree : trees) {
    threads.emplace_back([&tree] {
      if (Result<> r = InstallFilter(); !r) {
        LOG_ERROR("cannot install the system-call filter: {}", r.error().name());
        _exit(1);
      }
      if (Result<> r = tree.server->Serve(tree.socket); !r) LOG_ERROR("connection closed: {}", r.error().name());
      close(tree.socket);
    });
  }
  for (std::thread& t : threads) t.join();
  return 0;
}

}  // namespace redoubt::gofer

#include "pkg/sentry/auth/user_namespace.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>

namespace redoubt::auth {
namespace {

// Far above those of PID namespaces (kernel/pid_namespace.cc) and those that procfs shows of the other kinds.
constexpr uint64_t kFirstInode = 0xf8000000;

uint64_t NextInode() {
  static std::atomic<uint64_t> next{0};
  return kFirstInode + next.fetch_add(1, std::memory_order_relaxed);
}

bool Has(const std::vector<IdExtent>& extents, uint32_t id) {
  return std::any_of(extents.begin(), extents.end(),
                     [id](const IdExtent& e) { return id >= e.first && id - e.first < e.count; });
}

std::string Map(const std::vector<IdExtent>& extents) {
  std::string text;
  for (const IdExtent& e : extents) {
    fmt::format_to(std::back_inserter(text), "{:10} {:10} {:10}\n", e.first, e.lower_first, e.count);
  }
  return text;
}

}  // namespace

UserNamespace::UserNamespace(std::vector<IdExtent> uids, std::vector<IdExtent> gids)
    : uids_(std::move(uids)), gids_(std::move(gids)), inode_(NextInode()) {}

bool UserNamespace::HasUid(uint32_t uid) const { return Has(uids_, uid); }
bool UserNamespace::HasGid(uint32_t gid) const { return Has(gids_, gid); }
std::string UserNamespace::UidMap() const { return Map(uids_); }
std::string UserNamespace::GidMap() const { return Map(gids_); }

}  // namespace redoubt::auth

#include "pkg/sync/mutex.h"

#include "pkg/log/log.h"

#ifndef NDEBUG
namespace redoubt::sync::internal {
namespace {

// The ranks this OS thread holds, in the order taken. A fiber holds none when it moves to another thread (the executor
// checks), so thread-local state is right.
constexpr int kMaxHeld = 32;
struct Held {
  Rank ranks[kMaxHeld];
  int count = 0;
};
thread_local Held held;

// Not inlined: a fiber that moves between threads must not reuse a cached thread-local address.
[[gnu::noinline]] Held& CurrentHeld() { return held; }

}  // namespace

void PushRank(Rank rank, bool nested) {
  Held& h = CurrentHeld();
  CHECK(h.count < kMaxHeld, "too many locks held");
  if (!nested) {
    for (int i = 0; i < h.count; i++) {
      if (h.ranks[i] >= rank) {
        log::Fatal(__FILE__, __LINE__,
                   fmt::format("lock order: rank {} taken while rank {} is held (pkg/sync/ranks.h)",
                               static_cast<int>(rank), static_cast<int>(h.ranks[i])));
      }
    }
  }
  h.ranks[h.count++] = rank;
}

void PopRank(Rank rank) {
  Held& h = CurrentHeld();
  for (int i = h.count - 1; i >= 0; i--) {
    if (h.ranks[i] != rank) continue;
    for (int j = i; j + 1 < h.count; j++) h.ranks[j] = h.ranks[j + 1];
    h.count--;
    return;
  }
  log::Fatal(__FILE__, __LINE__, "a mutex was unlocked on a thread that does not hold it (held across a park?)");
}

int HeldCount() { return CurrentHeld().count; }

}  // namespace redoubt::sync::internal
#endif

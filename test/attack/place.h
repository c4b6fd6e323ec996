// Puts arbitrary code in the Sentry's place or the gofer's: the same box, the same filter, or one of the two alone, or
// neither.
#ifndef REDOUBT_TEST_ATTACK_PLACE_H_
#define REDOUBT_TEST_ATTACK_PLACE_H_

#include <functional>
#include <string>

namespace redoubt::attack {

enum class Role { kSentry, kGofer };

struct Walls {
  bool box = false;
  bool filter = false;
  bool host_network = false;  // the Sentry's as they are with --network=host
};

// What the code in its place finds.
struct Place {
  int tree = -1;     // the gofer's: the root of what it serves; writable
  int self_fd = -1;  // the gofer's: /proc/self/fd
};

// How an attempt ended: 0, it has had its way; an errno; or it was stopped by the filter.
inline constexpr int kStopped = 1000;
using Attempt = std::function<int(const Place&)>;

// In a process of its own that cannot harm the host even where it succeeds: without the box it has at least a mount and
// a UTS namespace of its own. `tree`: the directory that the gofer serves.
int Try(Role role, Walls walls, const std::string& tree, const Attempt& attempt);

// 0, or errno, of a call that gives -1 for a failure.
int Outcome(long result);

}  // namespace redoubt::attack

#endif  // REDOUBT_TEST_ATTACK_PLACE_H_

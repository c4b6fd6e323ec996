// Private to unix: descriptors on their way in a message (SCM_RIGHTS).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_UNIX_RIGHTS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_UNIX_RIGHTS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::unixsock {

using File = RefPtr<vfs::FileDescription>;

// The descriptions that one message carries, counted as in flight while they do. Destroying them closes them, without
// recursion however deep sockets lie in messages in sockets.
//
// A socket whose only references are in flight, in queues that only such sockets have, can never be received:
// CollectGarbage finds those (the algorithm of Linux's net/unix/garbage.c before 6.10) and empties their queues. It
// looks at all that are in flight, so it runs when an eighth as many sockets have ended since the last time or, if many
// are in flight, when half as many messages have been sent.
class Rights final {
 public:
  static constexpr size_t kMaxFiles = 253;           // SCM_MAX_FD
  static constexpr uint64_t kMaxInFlight = 1 << 16;  // of all messages, whatever the limit of who sends

  Rights() = default;
  // EINVAL for more than kMaxFiles; ETOOMANYREFS if more than `limit` would be in flight.
  static Result<Rights> Launch(std::vector<File> files, uint64_t limit);
  Rights(Rights&& o) noexcept : files_(std::exchange(o.files_, {})) {}
  Rights& operator=(Rights&& o) noexcept {
    std::swap(files_, o.files_);
    return *this;
  }
  ~Rights();

  bool empty() const { return files_.empty(); }
  const std::vector<File>& files() const { return files_; }
  // Ends the flight.
  std::vector<File> Land();

 private:
  std::vector<File> files_;
};

void CollectGarbage();
// A socket has ended: collects if it is time.
void SocketEnded();
// Drops the references; those that were dropped by others meanwhile may go a little later.
void Bury(std::vector<File> files);
// Sockets that are in flight: for tests.
size_t SocketsInFlight();

}  // namespace redoubt::unixsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_UNIX_RIGHTS_H_

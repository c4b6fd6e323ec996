// Limits of the whole system, which /proc/sys shows and sets, and counts of what each user holds: what a guest can make
// the Sentry hold (docs/security.md, "Bounds").
#ifndef REDOUBT_PKG_SENTRY_LIMITS_SYSTEM_H_
#define REDOUBT_PKG_SENTRY_LIMITS_SYSTEM_H_

#include <atomic>
#include <cstdint>
#include <map>

#include "pkg/sync/mutex.h"

namespace redoubt::limits {

// One for the process, which has one Linux. Defaults are Linux's for 4 GiB of memory, but for threads_max.
struct System final {
  // Each task has a fiber's stack, which is two mappings of the host's (vm.max_map_count).
  static constexpr int64_t kMostThreads = 16384;

  std::atomic<int64_t> threads_max{kMostThreads};       // kernel.threads-max
  std::atomic<int64_t> max_map_count{65530};            // vm.max_map_count
  std::atomic<int64_t> file_max{419430};                // fs.file-max
  std::atomic<int64_t> mount_max{100000};               // fs.mount-max
  std::atomic<int64_t> pipe_max_size{1 << 20};          // fs.pipe-max-size, bytes
  std::atomic<int64_t> pipe_user_pages_soft{16384};     // fs.pipe-user-pages-soft, pages; 0: none
  std::atomic<int64_t> pipe_user_pages_hard{0};         // fs.pipe-user-pages-hard
  std::atomic<int64_t> epoll_max_user_watches{900000};  // fs.epoll.max_user_watches
  std::atomic<int64_t> inotify_max_events{16384};       // fs.inotify.max_queued_events, of an instance
  std::atomic<int64_t> inotify_max_instances{128};      // fs.inotify.max_user_instances
  std::atomic<int64_t> inotify_max_watches{33554};      // fs.inotify.max_user_watches
  std::atomic<int64_t> max_pid_namespaces{8192};        // user.max_pid_namespaces, of a user
  std::atomic<int64_t> msgmax{8192};                    // kernel.msgmax, bytes of a message
  std::atomic<int64_t> msgmnb{16384};                   // kernel.msgmnb, bytes of a queue
  std::atomic<int64_t> msgmni{32000};                   // kernel.msgmni, queues
  std::atomic<int64_t> semmns{1024000};                 // the second number of kernel.sem: of all sets; Linux: 32000^2
  std::atomic<int64_t> mq_queues_max{256};              // fs.mqueue.queues_max
  std::atomic<int64_t> mq_msg_max{10};                  // fs.mqueue.msg_max, messages of a queue
  std::atomic<int64_t> mq_msgsize_max{8192};            // fs.mqueue.msgsize_max, bytes of a message
  std::atomic<int64_t> mq_msg_default{10};              // fs.mqueue.msg_default
  std::atomic<int64_t> mq_msgsize_default{8192};        // fs.mqueue.msgsize_default

  static constexpr int64_t kMostQueues = 32768;       // POSIX message queues, of anybody; Linux: 2^31 - 1
  static constexpr int64_t kMostOfMessage = 1 << 20;  // bytes that msgmax can be set to; Linux: 2^31 - 1

  // As Linux does for a machine of so many bytes.
  void ScaleTo(uint64_t memory);

  static System& Get();
};

// How much of one thing each user holds. Thread-safe.
class UserCount final {
 public:
  // False, and nothing is counted, if it would be more than `limit`.
  [[nodiscard]] bool Charge(uint32_t uid, uint64_t n, uint64_t limit = UINT64_MAX);
  void Uncharge(uint32_t uid, uint64_t n);
  uint64_t Of(uint32_t uid) const;

 private:
  mutable sync::Mutex mu_{sync::Rank::kLeaf};
  std::map<uint32_t, uint64_t> counts_ GUARDED_BY(mu_);  // those that are not zero
};

// Real-time signals that wait for a process of the user's, and its POSIX timers: RLIMIT_SIGPENDING (getrlimit(2)).
UserCount& PendingSignalsOfUsers();
// PID namespaces that processes of the user's have made: user.max_pid_namespaces (namespaces(7)).
UserCount& PidNamespacesOfUsers();
// Bytes of POSIX message queues that the user has made, as RLIMIT_MSGQUEUE counts them (getrlimit(2)).
UserCount& MessageQueuesOfUsers();

}  // namespace redoubt::limits

#endif  // REDOUBT_PKG_SENTRY_LIMITS_SYSTEM_H_

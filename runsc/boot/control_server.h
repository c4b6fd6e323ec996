// Requests from outside: the connections, who may have how many, and which of them is whose.
#ifndef REDOUBT_RUNSC_BOOT_CONTROL_SERVER_H_
#define REDOUBT_RUNSC_BOOT_CONTROL_SERVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"
#include "runsc/control/connection.h"
#include "runsc/control/protocol.h"

namespace redoubt::boot {

class ControlServer;

// One connection, as those see it who answer its requests. One request is under way at a time. Held by the server until
// it is closed, and by who still has to answer. Calls come from fibers; none blocks, as the sockets do not: who does
// not read his answers is cut off.
class Peer final : public RefCounted {
 public:
  // What happens when the other end has gone; on a fiber, at most once.
  using Gone = std::function<void()>;
  using OnSignal = std::function<void(const control::Request& request)>;

  // The answer to the request under way: the next one is read.
  void Reply(const control::Reply& reply);
  // The connection is a process's from now on: signals are all that comes, one at a time and on a fiber, until Finish
  // or until the other end has gone. Before the answer to the request under way.
  void Attach(OnSignal on_signal, Gone gone);
  // The answer to the request under way will take its time; if the other end goes first, `gone` hears of it.
  void AnswersLater(Gone gone);
  // The last thing that is sent.
  void Finish(const control::Reply& reply);

 private:
  friend class ControlServer;
  Peer(ControlServer& server, control::Connection connection, uint64_t id)
      : server_(server), connection_(std::move(connection)), id_(id) {}

  ControlServer& server_;
  const control::Connection connection_;
  const uint64_t id_;
  // Guarded by the server's lock.
  enum class State { kIdle, kBusy, kLater, kClosed } state_ = State::kIdle;
  bool attached_ = false;
  uint64_t used_ = 0;  // when it last became idle, in requests
  OnSignal on_signal_;
  Gone gone_;
};

// One thread looks after all connections (Run, on the caller's); requests are carried out on fibers. Bounded: beside
// the attached and the waiting there are kMaxOthers connections, the longest idle of which make room for new ones;
// while all are busy, and beyond kMaxPeers of all kinds, nobody is let in. What a peer sends can get it an error or a
// closed connection.
class ControlServer final {
 public:
  using Handler = std::function<void(RefPtr<Peer> peer, control::Request request, std::vector<UniqueFd> fds)>;
  static constexpr size_t kMaxOthers = 64;
  static constexpr size_t kMaxPeers = 8192;

  // `listener`: none if nobody may come. `handler` is called on fibers of `executor`.
  ControlServer(fiber::Executor& executor, UniqueFd listener, Handler handler);
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // A connection that is there from the start, non-blocking; `gone` holds until its first request is answered. Before
  // Run.
  RefPtr<Peer> Add(control::Connection connection, Peer::Gone gone) EXCLUDES(mu_);
  // Until the process ends.
  [[noreturn]] void Run() EXCLUDES(mu_);

 private:
  friend class Peer;

  void Accept() EXCLUDES(mu_);
  void Receive(uint64_t id, uint32_t events) EXCLUDES(mu_);
  void Watch(Peer& peer, uint32_t events, bool fresh) REQUIRES(mu_);
  // Takes it out and has its `gone` called, by Run: fibers are not started under the lock.
  void CloseLocked(Peer& peer) REQUIRES(mu_);
  void Close(Peer& peer) EXCLUDES(mu_);
  void Resume(Peer& peer) EXCLUDES(mu_);
  // Lets more in if there is room and nobody was let in for want of it.
  void ListenLocked() REQUIRES(mu_);
  bool MakeRoomLocked() REQUIRES(mu_);
  bool IsOther(const Peer& peer) const REQUIRES(mu_) { return !peer.attached_ && peer.state_ != Peer::State::kLater; }

  void TellOfTheGone() EXCLUDES(mu_);

  fiber::Executor& executor_;
  const UniqueFd epoll_;
  const UniqueFd wake_;  // eventfd(2)
  const UniqueFd listener_;
  const Handler handler_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::map<uint64_t, RefPtr<Peer>> peers_ GUARDED_BY(mu_);
  uint64_t next_id_ GUARDED_BY(mu_) = 1;
  uint64_t requests_ GUARDED_BY(mu_) = 0;
  std::vector<Peer::Gone> gone_ GUARDED_BY(mu_);  // still to be called
  bool listening_ GUARDED_BY(mu_) = false;
};

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_CONTROL_SERVER_H_

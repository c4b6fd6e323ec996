// The CLI's side of a sandbox, as small as it can be: real boot and gofer processes over a small directory, and
// requests by hand.
#ifndef REDOUBT_RUNSC_BOOT_TEST_FAKE_CLI_H_
#define REDOUBT_RUNSC_BOOT_TEST_FAKE_CLI_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "runsc/control/connection.h"
#include "runsc/control/protocol.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// One end of a connection. Waits a bounded time for answers, and fails the test when there is none.
class Client final {
 public:
  Client() = default;
  explicit Client(control::Connection connection) : connection_(std::move(connection)) {}

  void Send(const control::Request& request, const std::vector<int>& fds = {});
  control::Reply Receive();
  control::Reply Ask(const control::Request& request, const std::vector<int>& fds = {}) {
    Send(request, fds);
    return Receive();
  }
  // The other end has closed it, with nothing left to read.
  bool IsClosed(int milliseconds = 10'000);
  const control::Connection& connection() const { return connection_; }
  void Close() { connection_ = control::Connection(); }

 private:
  control::Connection connection_;
};

// What a process inside writes, up to now or up to its end.
class Output final {
 public:
  Output();
  int fd() const { return write_.get(); }
  void CloseWriter() { write_ = UniqueFd(); }
  // Until it has written `text` or `seconds` have passed.
  bool WaitFor(const std::string& text, int seconds = 20);
  const std::string& text() const { return text_; }
  void ReadNow();

 private:
  UniqueFd read_, write_;
  std::string text_;
};

// A sandbox that is started but has no container yet. Everything is killed in the destructor.
class FakeCli final {
 public:
  struct Options {
    bool listen = true;
    std::string platform;  // default: $RUNSC_PLATFORM
    bool report_missing = false;
  };
  FakeCli() : FakeCli(Options{}) {}
  explicit FakeCli(Options options);
  ~FakeCli();

  const std::string& root() const { return root_; }
  // `/bin/busybox sh -c SCRIPT` in the directory, which has busybox, /proc, /dev and /tmp and nothing else.
  specutils::Spec Shell(const std::string& script) const;
  // The request, and descriptors: stdio as given, a new gofer process's socket.
  void SendCreate(Client& client, const std::string& id, const specutils::Spec& spec, int out, bool start,
                  bool attach = true);
  control::Reply Create(Client& client, const std::string& id, const specutils::Spec& spec, int out, bool start) {
    SendCreate(client, id, spec, out, start);
    return client.Receive();
  }
  control::Reply Exec(Client& client, const std::string& id, const std::vector<std::string>& args, int out,
                      bool attach = true);

  Client& first() { return first_; }
  Client Connect();
  // A connection for one question.
  control::Reply Ask(const control::Request& request) { return Connect().Ask(request); }
  // The sandbox's process has ended; its exit status.
  bool HasEnded(int milliseconds = 10'000, int* status = nullptr);
  pid_t boot() const { return boot_; }
  const std::string& socket_path() const { return socket_path_; }

 private:
  UniqueFd StartGofer();

  std::string root_, socket_path_;
  pid_t boot_ = -1;
  std::vector<pid_t> gofers_;
  Client first_;
};

// What a file of the sandbox's directory holds.
std::string Contents(const std::string& path);
// Waits until `condition` holds.
bool Eventually(const std::function<bool()>& condition, int seconds = 20);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_TEST_FAKE_CLI_H_

// A 9P2000.L client on a stream socket. Used by the gofer file system from fibers, and by tests.
#ifndef REDOUBT_PKG_P9_CLIENT_H_
#define REDOUBT_PKG_P9_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/p9/protocol.h"
#include "pkg/p9/transport.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::p9 {

class Client;

// A fid of the server's, clunked when the last reference goes: at once if it may be written, otherwise with the next
// message, or when there are many such. Calls send one message and wait for the answer, and block the fiber meanwhile.
// Errors are the server's, or EIO if the connection is gone or the server speaks nonsense.
class File final : public RefCounted {
 public:
  // Walks zero or more components; no names: a copy of this fid.
  Result<RefPtr<File>> Walk(const std::vector<std::string>& names, std::vector<Qid>* qids = nullptr);
  Result<Attributes> GetAttributes();
  Result<> SetAttributes(const p9::SetAttributes& change);
  // A walk and the attributes of what it found: one message if the server knows how.
  struct Found;
  Result<Found> WalkGetAttributes(const std::vector<std::string>& names);
  // The attributes alone.
  Result<Attributes> GetAttributesOf(const std::vector<std::string>& names);
  // A copy of this fid, opened. `attributes`, if wanted, are of after the opening; one message if the server knows how.
  Result<RefPtr<File>> OpenCopy(uint32_t flags, Attributes* attributes = nullptr);
  // Opens this very fid (9P: it cannot be walked from afterwards). `flags` are Linux's O_ flags.
  Result<> Open(uint32_t flags);
  // Creates a regular file in this directory and opens it: this fid then is the file.
  Result<> Create(std::string_view name, uint32_t flags, uint32_t mode, uint32_t gid);
  Result<Qid> Mkdir(std::string_view name, uint32_t mode, uint32_t gid);
  Result<Qid> Mknod(std::string_view name, uint32_t mode, uint32_t major, uint32_t minor, uint32_t gid);
  Result<Qid> Symlink(std::string_view name, std::string_view target, uint32_t gid);
  Result<> Link(std::string_view name, File& target);
  Result<> RenameAt(std::string_view old_name, File& new_directory, std::string_view new_name);
  Result<> UnlinkAt(std::string_view name, uint32_t flags);
  Result<std::string> Readlink();
  // At most `max_io` bytes; fewer at the end of the file.
  Result<size_t> Read(std::span<std::byte> dst, uint64_t offset);
  // As Read of `want` bytes, which `take` is given; they are there during the call only. An error of its is the result.
  Result<size_t> Read(size_t want, uint64_t offset, const std::function<Result<>(std::span<const std::byte>)>& take);
  Result<size_t> Write(std::span<const std::byte> src, uint64_t offset);
  Result<> Fsync(bool data_only);
  Result<std::vector<DirectoryEntry>> Readdir(uint64_t offset);
  Result<Statfs> GetStatfs();
  Result<std::string> GetXattr(std::string_view name);
  Result<std::vector<std::string>> ListXattr();
  Result<> SetXattr(std::string_view name, std::string_view value, uint32_t flags);
  uint32_t fid() const { return fid_; }

 private:
  friend class Client;
  File(RefPtr<Client> client, uint32_t fid);
  ~File() override;

  Result<std::string> ReadXattr(std::string_view name);
  // A Twalkgetattr.
  Result<Attributes> WalkGetAttributesTo(uint32_t fid, const std::vector<std::string>& names);

  const RefPtr<Client> client_;
  const uint32_t fid_;
  bool clunked_ = false;   // explicitly, to hear the error
  bool writable_ = false;  // opened for writing: the host may wait for its end
};

struct File::Found {
  RefPtr<File> file;
  Attributes attributes;
};

// The connection. One message is on its way at a time: who comes second waits on a fiber lock (outside fibers one
// thread at a time may use it).
class Client final : public RefCounted {
 public:
  enum class Dialect {
    kPlain,     // 9P2000.L
    kExtended,  // with the messages of kExtendedVersion, if the server has them
  };
  // Takes over `socket`, negotiates the version. EPROTO: not a 9P2000.L server.
  static Result<RefPtr<Client>> Connect(int socket, uint32_t message_size = (256 << 10) + kIoHeaderSize,
                                        Dialect dialect = Dialect::kExtended);
  // The root that the server serves as `name`.
  Result<RefPtr<File>> Attach(std::string_view name = "");
  uint32_t max_io() const { return message_size_ - kIoHeaderSize; }
  // How many have been sent, clunks included.
  uint64_t messages() const { return messages_.load(std::memory_order_relaxed); }
  // Of all clients of this process, those that are gone too.
  static uint64_t TotalMessages();
  bool extended() const { return extended_; }

 private:
  friend class File;
  Client(int socket, uint32_t message_size);
  ~Client() override;

  // One exchange: sends `request` and passes the body of an answer of type `expected` to `parse`; Rlerror becomes its
  // errno. EIO: what came is malformed, or the connection is gone.
  template <typename Parse>
  Result<> Call(Writer& request, Type expected, Parse&& parse);
  // One Tversion: what the server makes of `version`.
  Result<std::string> Negotiate(std::string_view version, uint32_t message_size);
  Result<> Call(Writer& request, Type expected);
  // Sends the clunks that are due, and `request` if there is one, in one go. The answer's body.
  Result<std::span<const std::byte>> ExchangeLocked(Writer* request, Type expected);
  uint32_t AllocateFid();
  void FreeFid(uint32_t fid);
  void Clunk(uint32_t fid);
  // Later, together with others.
  void DeferClunk(uint32_t fid);
  void SendClunks();

  const int socket_;
  // Both are set before others see the client.
  uint32_t message_size_;
  bool extended_ = false;
  std::atomic<uint64_t> messages_{0};
  fiber::Mutex mu_;
  MessageReader reader_;           // by the lock's holder
  std::vector<std::byte> answer_;  // by the lock's holder: an answer that came before those of clunks
  bool broken_ = false;            // by the lock's holder
  sync::Mutex fids_mu_{sync::Rank::kLeaf};
  uint32_t next_fid_ GUARDED_BY(fids_mu_) = 0;
  std::vector<uint32_t> free_fids_ GUARDED_BY(fids_mu_);
  std::vector<uint32_t> due_clunks_ GUARDED_BY(fids_mu_);
};

}  // namespace redoubt::p9

#endif  // REDOUBT_PKG_P9_CLIENT_H_

// The gofer's file server: serves one directory tree over 9P2000.L. It knows nothing of the Sentry.
//
// Confinement: every fid holds an O_PATH descriptor; names are single components, opened beneath a directory's
// descriptor with O_NOFOLLOW, so no ".." and no symbolic link is ever followed by the host's kernel. Devices, FIFOs and
// sockets are seen and made, never opened.
#ifndef REDOUBT_PKG_GOFER_SERVER_H_
#define REDOUBT_PKG_GOFER_SERVER_H_

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fd/unique_fd.h"
#include "pkg/p9/protocol.h"
#include "pkg/p9/transport.h"

namespace redoubt::gofer {

struct Options {
  bool read_only = false;     // EROFS for every change
  size_t max_fids = 1 << 18;  // ENFILE beyond; the descriptor limit of the process is met first
  // The working directory is /proc/self/fd, and that may be the only way there.
  bool works_in_self_fd = false;
};

class Server final {
 public:
  // `root`: O_PATH descriptor of the tree's root. `self_fd`: descriptor of /proc/self/fd, the way from an O_PATH
  // descriptor to an open one.
  Server(UniqueFd root, UniqueFd self_fd, const Options& options);
  ~Server();

  // Answers messages until the peer hangs up (returns) or breaks the protocol (EPROTO).
  Result<> Serve(int socket);

 private:
  struct Fid {
    UniqueFd path;      // O_PATH; of the object itself, also a symlink
    UniqueFd open;      // after Tlopen or Tlcreate
    uint32_t type = 0;  // S_IFMT bits
    // After Txattrwalk (read) or Txattrcreate (written at the clunk).
    bool xattr_read = false;
    bool xattr_write = false;
    std::string xattr_name;
    std::string xattr_value;
    uint64_t xattr_size = 0;
    int xattr_flags = 0;
  };
  using Handler = Result<> (Server::*)(p9::Reader& request, p9::Writer& answer);

  void Handle(std::span<const std::byte> message, int socket, Result<>& outcome);
  // Answers go out together while more questions are here already.
  Result<> Send(int socket, std::span<const std::byte> answer);
  // Null: the version agreed on has no such message.
  Handler HandlerOf(p9::Type type) const;

  Result<> Version(p9::Reader&, p9::Writer&);
  Result<> Attach(p9::Reader&, p9::Writer&);
  Result<> Flush(p9::Reader&, p9::Writer&);
  Result<> Walk(p9::Reader&, p9::Writer&);
  Result<> WalkGetattr(p9::Reader&, p9::Writer&);
  Result<> OpenCopy(p9::Reader&, p9::Writer&);
  Result<> Open(p9::Reader&, p9::Writer&);
  Result<> Create(p9::Reader&, p9::Writer&);
  Result<> Read(p9::Reader&, p9::Writer&);
  Result<> Write(p9::Reader&, p9::Writer&);
  Result<> Clunk(p9::Reader&, p9::Writer&);
  Result<> Remove(p9::Reader&, p9::Writer&);
  Result<> Statfs(p9::Reader&, p9::Writer&);
  Result<> Getattr(p9::Reader&, p9::Writer&);
  Result<> Setattr(p9::Reader&, p9::Writer&);
  Result<> Readdir(p9::Reader&, p9::Writer&);
  Result<> Readlink(p9::Reader&, p9::Writer&);
  Result<> Symlink(p9::Reader&, p9::Writer&);
  Result<> Mknod(p9::Reader&, p9::Writer&);
  Result<> Mkdir(p9::Reader&, p9::Writer&);
  Result<> Link(p9::Reader&, p9::Writer&);
  Result<> Renameat(p9::Reader&, p9::Writer&);
  Result<> Unlinkat(p9::Reader&, p9::Writer&);
  Result<> Fsync(p9::Reader&, p9::Writer&);
  Result<> Xattrwalk(p9::Reader&, p9::Writer&);
  Result<> Xattrcreate(p9::Reader&, p9::Writer&);

  Result<Fid*> Get(uint32_t fid);
  Result<Fid*> GetDirectory(uint32_t fid);
  // A walk's arguments and outcome: what it came to, and the qids of what it found on the way.
  struct Walked {
    uint32_t from_number, to_number;
    size_t names;
    Fid at;
    std::vector<p9::Qid> qids;
    bool complete() const { return qids.size() == names; }
  };
  Result<Walked> DoWalk(p9::Reader& request);
  // Gives the fid asked for to a complete walk.
  Result<> Keep(Walked walked);
  // A fresh fid for the same object.
  Result<Fid> Copy(const Fid& fid) const;
  Result<p9::Attributes> AttributesOf(int fd);
  // EBUSY-like misuse is EBADF: a fid number already in use.
  Result<> Insert(uint32_t number, Fid fid);
  Result<> CheckWritable() const;
  Result<p9::Qid> QidOf(int fd, uint32_t* type = nullptr);
  Result<p9::Qid> QidOfChild(int directory, const std::string& name);
  p9::Qid MakeQid(const struct statx& sx);
  p9::Qid MakeQid(uint64_t dev, uint64_t ino, uint32_t mode, int64_t mtime_ns);
  // Opens what an O_PATH descriptor names, for I/O; refuses all but regular files and directories.
  Result<UniqueFd> Reopen(const Fid& fid, int flags);
  std::string SelfPath(const Fid& fid) const;
  // A path to the same, for calls that know no directory descriptors.
  std::string LinkPath(const Fid& fid) const;

  const UniqueFd root_;
  const UniqueFd self_fd_;
  const Options options_;
  uint32_t message_size_ = p9::kMinMessageSize;
  bool versioned_ = false;
  bool extended_ = false;  // p9::kExtendedVersion
  std::unordered_map<uint32_t, Fid> fids_;
  // Inode numbers are unique per device only: each device met gets the next number, kept in the top bits of Qid::path.
  std::map<uint64_t, uint64_t> devices_;
  p9::MessageReader reader_;
  p9::Writer answer_{p9::Type::kRlerror, p9::kNoTag};  // keeps its memory from one message to the next
  std::vector<std::byte> unsent_;
};

}  // namespace redoubt::gofer

#endif  // REDOUBT_PKG_GOFER_SERVER_H_

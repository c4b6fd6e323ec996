#include "pkg/gofer/server.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>

#include "pkg/log/log.h"

namespace redoubt::gofer {
namespace {

using p9::Reader;
using p9::Type;
using p9::Writer;

constexpr size_t kMaxXattr = 65536;
constexpr size_t kMaxXattrName = 255;
constexpr int kOpenFlags = O_ACCMODE | O_TRUNC | O_APPEND | O_DIRECTORY | O_NOATIME | O_SYNC | O_DSYNC;
// Always: a FIFO must not block the gofer, a terminal must not become its own, nothing is inherited.
constexpr int kSafeFlags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

Result<std::string> Name(Reader& r) {
  std::string name = r.String();
  if (!r.ok() || !p9::IsValidName(name)) return Err(EINVAL);
  return name;
}

// The outcome of a chown of what has just been made: an unprivileged gofer keeps its own group, as any user would. In a
// user namespace a group that is shown as nobody's cannot be given, and may be what a set-group-ID directory gave.
// Whoever cares looks who the owner is.
Result<> GiveToGroup(int result) {
  if (result < 0 && errno != EPERM && errno != EINVAL && errno != EOVERFLOW) return ErrFromHost();
  return {};
}

// Of the file itself, never through a symbolic link. `name` empty: of what `fd` is open for. The only call that asks
// for attributes, of which the filter allows one.
Result<struct statx> Statx(int fd, const char* name, unsigned mask) {
  struct statx sx;
  if (statx(fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, mask, &sx) < 0) return ErrFromHost();
  return sx;
}

Result<> FromHost(int result) {
  if (result < 0) return ErrFromHost();
  return {};
}

}  // namespace

Server::Server(UniqueFd root, UniqueFd self_fd, const Options& options)
    : root_(std::move(root)), self_fd_(std::move(self_fd)), options_(options) {}

Server::~Server() = default;

Server::Handler Server::HandlerOf(Type type) const {
  switch (type) {
    case Type::kTversion:
      return &Server::Version;
    case Type::kTattach:
      return &Server::Attach;
    case Type::kTflush:
      return &Server::Flush;
    case Type::kTwalk:
      return &Server::Walk;
    case Type::kTlopen:
      return &Server::Open;
    case Type::kTlcreate:
      return &Server::Create;
    case Type::kTread:
      return &Server::Read;
    case Type::kTwrite:
      return &Server::Write;
    case Type::kTclunk:
      return &Server::Clunk;
    case Type::kTremove:
      return &Server::Remove;
    case Type::kTstatfs:
      return &Server::Statfs;
    case Type::kTgetattr:
      return &Server::Getattr;
    case Type::kTsetattr:
      return &Server::Setattr;
    case Type::kTreaddir:
      return &Server::Readdir;
    case Type::kTreadlink:
      return &Server::Readlink;
    case Type::kTsymlink:
      return &Server::Symlink;
    case Type::kTmknod:
      return &Server::Mknod;
    case Type::kTmkdir:
      return &Server::Mkdir;
    case Type::kTlink:
      return &Server::Link;
    case Type::kTrenameat:
      return &Server::Renameat;
    case Type::kTunlinkat:
      return &Server::Unlinkat;
    case Type::kTfsync:
      return &Server::Fsync;
    case Type::kTxattrwalk:
      return &Server::Xattrwalk;
    case Type::kTxattrcreate:
      return &Server::Xattrcreate;
    case Type::kTwalkgetattr:
      return extended_ ? &Server::WalkGetattr : nullptr;
    case Type::kTopencopy:
      return extended_ ? &Server::OpenCopy : nullptr;
    default:
      return nullptr;
  }
}

Result<> Server::Serve(int socket) {
  while (true) {
    Result<std::span<const std::byte>> message = reader_.Next(socket, versioned_ ? message_size_ : p9::kMaxMessageSize);
    if (!message) {
      if (message.error() == Errno(EPIPE) || message.error() == Errno(ECONNRESET)) return {};
      return Err(message.error());
    }
    Result<> outcome;
    Handle(*message, socket, outcome);
    TRY(outcome);
  }
}

void Server::Handle(std::span<const std::byte> message, int socket, Result<>& outcome) {
  p9::Header header = p9::ParseHeader(message.first(p9::kHeaderSize));
  Reader request(message.subspan(p9::kHeaderSize));
  Handler handler = HandlerOf(header.type);
  // Every answer's type is its question's plus one.
  answer_.Reset(static_cast<Type>(static_cast<uint8_t>(header.type) + 1), header.tag);
  Result<> r = Err(EOPNOTSUPP);
  if (handler != nullptr) {
    r = versioned_ || header.type == Type::kTversion ? (this->*handler)(request, answer_) : Result<>(Err(EPROTO));
    // A handler reads all of its request before it acts, so a short one has changed nothing.
    if (r && !request.ok()) r = Err(EPROTO);
  }
  if (!r) {
    // Of the gofer's own descriptors, of which all of the guest's processes have their share.
    if (r.error() == Errno(EMFILE)) r = Err(ENFILE);
    answer_.Reset(Type::kRlerror, header.tag);
    answer_.U32(static_cast<uint32_t>(r.error().value()));
  }
  outcome = Send(socket, answer_.Finish());
}

Result<> Server::Send(int socket, std::span<const std::byte> answer) {
  constexpr size_t kMaxUnsent = 16 << 10;
  const bool more = reader_.HasNext();
  if (unsent_.empty() && !more) return p9::SendMessage(socket, answer);
  unsent_.insert(unsent_.end(), answer.begin(), answer.end());
  if (more && unsent_.size() < kMaxUnsent) return {};
  Result<> sent = p9::SendMessage(socket, unsent_);
  unsent_.clear();
  return sent;
}

Result<Server::Fid*> Server::Get(uint32_t fid) {
  auto it = fids_.find(fid);
  if (it == fids_.end()) return Err(EBADF);
  return &it->second;
}

Result<Server::Fid*> Server::GetDirectory(uint32_t fid) {
  Fid* f = TRY(Get(fid));
  if (f->type != S_IFDIR || f->xattr_read || f->xattr_write) return Err(ENOTDIR);
  return f;
}

Result<> Server::Insert(uint32_t number, Fid fid) {
  if (number == p9::kNoFid || fids_.contains(number)) return Err(EBADF);
  if (fids_.size() >= options_.max_fids) return Err(EMFILE);
  fids_.emplace(number, std::move(fid));
  return {};
}

Result<> Server::CheckWritable() const {
  if (options_.read_only) return Err(EROFS);
  return {};
}

p9::Qid Server::MakeQid(uint64_t dev, uint64_t ino, uint32_t mode, int64_t mtime_ns) {
  uint64_t index = devices_.try_emplace(dev, devices_.size()).first->second;
  p9::Qid qid;
  qid.type = S_ISDIR(mode) ? p9::kQidDirectory : S_ISLNK(mode) ? p9::kQidSymlink : p9::kQidFile;
  qid.version = static_cast<uint32_t>(mtime_ns);
  qid.path = ino ^ (index << 48);
  return qid;
}

Result<p9::Qid> Server::QidOf(int fd, uint32_t* type) {
  struct statx sx = TRY(Statx(fd, "", STATX_BASIC_STATS));
  if (type != nullptr) *type = sx.stx_mode & S_IFMT;
  return MakeQid(sx);
}

Result<p9::Qid> Server::QidOfChild(int directory, const std::string& name) {
  return MakeQid(TRY(Statx(directory, name.c_str(), STATX_BASIC_STATS)));
}

p9::Qid Server::MakeQid(const struct statx& sx) {
  return MakeQid(makedev(sx.stx_dev_major, sx.stx_dev_minor), sx.stx_ino, sx.stx_mode,
                 sx.stx_mtime.tv_sec * 1'000'000'000 + sx.stx_mtime.tv_nsec);
}

std::string Server::SelfPath(const Fid& fid) const { return std::to_string(fid.path.get()); }

std::string Server::LinkPath(const Fid& fid) const {
  return (options_.works_in_self_fd ? "" : "/proc/self/fd/") + SelfPath(fid);
}

Result<UniqueFd> Server::Reopen(const Fid& fid, int flags) {
  if (fid.type != S_IFREG && fid.type != S_IFDIR) return Err(ENXIO);
  // Through the magic link, which names the very inode that the O_PATH descriptor holds: no name is looked up again.
  UniqueFd fd(openat(self_fd_.get(), SelfPath(fid).c_str(), (flags & kOpenFlags) | (kSafeFlags & ~O_NOFOLLOW)));
  if (!fd && errno == EPERM && (flags & O_NOATIME) != 0) {
    fd = UniqueFd(
        openat(self_fd_.get(), SelfPath(fid).c_str(), (flags & kOpenFlags & ~O_NOATIME) | (kSafeFlags & ~O_NOFOLLOW)));
  }
  if (!fd) return ErrFromHost();
  return fd;
}

Result<> Server::Version(Reader& request, Writer& answer) {
  uint32_t size = request.U32();
  std::string version = request.String();
  if (!request.ok()) return Err(EPROTO);
  if (size < p9::kMinMessageSize) return Err(EINVAL);
  // version(5): a new session forgets all fids.
  fids_.clear();
  message_size_ = std::min(size, p9::kMaxMessageSize);
  extended_ = version == p9::kExtendedVersion;
  // version(5): what follows a period is a dialect; whoever asks for one that is not known here gets the plain
  // protocol.
  versioned_ = extended_ || version == p9::kVersion || version.starts_with(std::string(p9::kVersion) + ".");
  answer.U32(message_size_).String(extended_ ? p9::kExtendedVersion : versioned_ ? p9::kVersion : "unknown");
  return {};
}

Result<> Server::Attach(Reader& request, Writer& answer) {
  uint32_t number = request.U32();
  uint32_t auth_fid = request.U32();
  (void)request.String();  // user name
  std::string tree = request.String();
  (void)request.U32();  // user number
  if (!request.ok()) return Err(EPROTO);
  if (auth_fid != p9::kNoFid) return Err(EINVAL);
  if (!tree.empty() && tree != "/") return Err(ENOENT);
  Fid fid;
  fid.path = UniqueFd(fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fid.path) return ErrFromHost();
  p9::Qid qid = TRY(QidOf(fid.path.get(), &fid.type));
  TRY(Insert(number, std::move(fid)));
  answer.Put(qid);
  return {};
}

// Requests are answered in order: whatever is to be flushed has been answered already.
Result<> Server::Flush(Reader& request, Writer&) {
  (void)request.U16();
  return {};
}

Result<Server::Fid> Server::Copy(const Fid& fid) const {
  Fid copy;
  copy.type = fid.type;
  copy.path = UniqueFd(fcntl(fid.path.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.path) return ErrFromHost();
  return copy;
}

Result<Server::Walked> Server::DoWalk(Reader& request) {
  Walked walked;
  walked.from_number = request.U32();
  walked.to_number = request.U32();
  uint16_t count = request.U16();
  if (!request.ok() || count > p9::kMaxWalkElements) return Err(EPROTO);
  std::vector<std::string> names;
  for (uint16_t i = 0; i < count; i++) names.push_back(TRY(Name(request)));
  walked.names = names.size();
  Fid* from = TRY(Get(walked.from_number));
  if (from->open || from->xattr_read || from->xattr_write) return Err(EBADF);
  if (walked.to_number != walked.from_number && fids_.contains(walked.to_number)) return Err(EBADF);
  Fid& at = walked.at;
  if (names.empty()) at = TRY(Copy(*from));
  for (const std::string& name : names) {
    // The first step starts at a fid that stays open; the others at what the walk has opened.
    const Fid& directory = walked.qids.empty() ? *from : at;
    Result<p9::Qid> qid = Err(ENOTDIR);
    UniqueFd next;
    uint32_t type = 0;
    if (directory.type == S_IFDIR) {
      next = UniqueFd(openat(directory.path.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      qid = next ? QidOf(next.get(), &type) : Result<p9::Qid>(ErrFromHost());
    }
    if (!qid) {
      // walk(5): the first failure is an error, a later one a short answer and no new fid.
      if (walked.qids.empty()) return Err(qid.error());
      break;
    }
    at.path = std::move(next);
    at.type = type;
    walked.qids.push_back(*qid);
  }
  return walked;
}

Result<> Server::Keep(Walked walked) {
  if (walked.to_number != walked.from_number) return Insert(walked.to_number, std::move(walked.at));
  *TRY(Get(walked.from_number)) = std::move(walked.at);
  return {};
}

Result<> Server::Walk(Reader& request, Writer& answer) {
  Walked walked = TRY(DoWalk(request));
  if (walked.to_number == p9::kNoFid) return Err(EBADF);
  answer.U16(static_cast<uint16_t>(walked.qids.size()));
  for (const p9::Qid& q : walked.qids) answer.Put(q);
  if (!walked.complete()) return {};
  return Keep(std::move(walked));
}

Result<> Server::WalkGetattr(Reader& request, Writer& answer) {
  Walked walked = TRY(DoWalk(request));
  answer.U16(static_cast<uint16_t>(walked.qids.size()));
  if (!walked.complete()) return {};
  answer.Put(TRY(AttributesOf(walked.at.path.get())));
  if (walked.to_number == p9::kNoFid) return {};
  return Keep(std::move(walked));
}

Result<> Server::OpenCopy(Reader& request, Writer& answer) {
  Fid* from = TRY(Get(request.U32()));
  uint32_t number = request.U32();
  int flags = static_cast<int>(request.U32());
  if (!request.ok()) return Err(EPROTO);
  if (from->open || from->xattr_read || from->xattr_write) return Err(EBADF);
  if (number == p9::kNoFid || fids_.contains(number)) return Err(EBADF);
  if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0) TRY(CheckWritable());
  Fid fid = TRY(Copy(*from));
  fid.open = TRY(Reopen(*from, flags));
  answer.Put(TRY(AttributesOf(fid.open.get())));
  return Insert(number, std::move(fid));
}

Result<> Server::Open(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  int flags = static_cast<int>(request.U32());
  if (!request.ok()) return Err(EPROTO);
  if (fid->open || fid->xattr_read || fid->xattr_write) return Err(EBADF);
  if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0) TRY(CheckWritable());
  fid->open = TRY(Reopen(*fid, flags));
  answer.Put(TRY(QidOf(fid->open.get()))).U32(0);
  return {};
}

Result<> Server::Create(Reader& request, Writer& answer) {
  Fid* fid = TRY(GetDirectory(request.U32()));
  std::string name = TRY(Name(request));
  int flags = static_cast<int>(request.U32());
  uint32_t mode = request.U32();
  uint32_t gid = request.U32();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  if (fid->open) return Err(EBADF);
  UniqueFd file(openat(fid->path.get(), name.c_str(), (flags & kOpenFlags) | O_CREAT | O_EXCL | kSafeFlags, 0600));
  if (!file) return ErrFromHost();
  TRY(GiveToGroup(fchownat(file.get(), "", -1, gid == p9::kNoUid ? -1 : gid, AT_EMPTY_PATH)));
  // After the owner, which clears set-ID bits.
  if (fchmodat(self_fd_.get(), std::to_string(file.get()).c_str(), mode & 07777, 0) < 0) return ErrFromHost();
  UniqueFd path(openat(fid->path.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!path) return ErrFromHost();
  p9::Qid qid = TRY(QidOf(file.get()));
  fid->path = std::move(path);
  fid->open = std::move(file);
  fid->type = S_IFREG;
  answer.Put(qid).U32(0);
  return {};
}

Result<> Server::Read(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  uint64_t offset = request.U64();
  uint32_t count = request.U32();
  if (!request.ok()) return Err(EPROTO);
  count = std::min(count, message_size_ - p9::kIoHeaderSize);
  if (fid->xattr_read) {
    size_t from = std::min<size_t>(offset, fid->xattr_value.size());
    size_t n = std::min<size_t>(count, fid->xattr_value.size() - from);
    answer.U32(static_cast<uint32_t>(n)).Bytes(std::as_bytes(std::span(fid->xattr_value).subspan(from, n)));
    return {};
  }
  if (!fid->open || fid->type != S_IFREG) return Err(fid->type == S_IFDIR ? EISDIR : EBADF);
  size_t at = answer.size();
  answer.U32(0);
  std::span<std::byte> room = answer.Reserve(count);
  ssize_t n = pread(fid->open.get(), room.data(), room.size(), static_cast<off_t>(offset));
  if (n < 0) return ErrFromHost();
  answer.Shrink(at + sizeof(uint32_t) + n);
  answer.PatchU32(at, static_cast<uint32_t>(n));
  return {};
}

Result<> Server::Write(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  uint64_t offset = request.U64();
  uint32_t count = request.U32();
  std::span<const std::byte> data = request.Bytes(count);
  if (!request.ok()) return Err(EPROTO);
  if (fid->xattr_write) {
    if (offset != fid->xattr_value.size() || offset + count > fid->xattr_size) return Err(EINVAL);
    fid->xattr_value.append(reinterpret_cast<const char*>(data.data()), data.size());
    answer.U32(count);
    return {};
  }
  TRY(CheckWritable());
  if (!fid->open || fid->type != S_IFREG) return Err(EBADF);
  ssize_t n = pwrite(fid->open.get(), data.data(), data.size(), static_cast<off_t>(offset));
  if (n < 0) return ErrFromHost();
  answer.U32(static_cast<uint32_t>(n));
  return {};
}

Result<> Server::Clunk(Reader& request, Writer&) {
  uint32_t number = request.U32();
  if (!request.ok()) return Err(EPROTO);
  auto it = fids_.find(number);
  if (it == fids_.end()) return Err(EBADF);
  Fid fid = std::move(it->second);
  fids_.erase(it);
  if (!fid.xattr_write) return {};
  if (fid.xattr_value.size() != fid.xattr_size) return Err(EINVAL);
  std::string path = LinkPath(fid);
  // An O_PATH descriptor takes no fsetxattr: by its magic link. An empty value with XATTR_REPLACE removes (as Linux's
  // server does).
  if (fid.xattr_size == 0 && (fid.xattr_flags & XATTR_REPLACE) != 0) {
    return FromHost(removexattr(path.c_str(), fid.xattr_name.c_str()));
  }
  return FromHost(
      setxattr(path.c_str(), fid.xattr_name.c_str(), fid.xattr_value.data(), fid.xattr_value.size(), fid.xattr_flags));
}

// The fid does not know its name; Tunlinkat is what 9P2000.L clients use. The fid is clunked all the same (remove(5)).
Result<> Server::Remove(Reader& request, Writer&) {
  uint32_t number = request.U32();
  if (!request.ok()) return Err(EPROTO);
  fids_.erase(number);
  return Err(EOPNOTSUPP);
}

Result<> Server::Statfs(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  if (!request.ok()) return Err(EPROTO);
  struct statfs s;
  if (fstatfs(fid->path.get(), &s) < 0) return ErrFromHost();
  p9::Statfs out;
  out.type = static_cast<uint32_t>(s.f_type);
  out.bsize = static_cast<uint32_t>(s.f_bsize);
  out.blocks = s.f_blocks;
  out.bfree = s.f_bfree;
  out.bavail = s.f_bavail;
  out.files = s.f_files;
  out.ffree = s.f_ffree;
  std::memcpy(&out.fsid, &s.f_fsid, sizeof(out.fsid));
  out.namelen = static_cast<uint32_t>(s.f_namelen);
  answer.Put(out);
  return {};
}

Result<p9::Attributes> Server::AttributesOf(int fd) {
  struct statx sx = TRY(Statx(fd, "", STATX_BASIC_STATS | STATX_BTIME));
  p9::Attributes a;
  a.valid = p9::kGetattrBasic | ((sx.stx_mask & STATX_BTIME) != 0 ? p9::kGetattrBtime : 0);
  a.qid = MakeQid(sx);
  a.mode = sx.stx_mode;
  a.uid = sx.stx_uid;
  a.gid = sx.stx_gid;
  a.nlink = sx.stx_nlink;
  a.rdev = makedev(sx.stx_rdev_major, sx.stx_rdev_minor);
  a.size = sx.stx_size;
  a.blksize = sx.stx_blksize;
  a.blocks = sx.stx_blocks;
  a.atime_sec = sx.stx_atime.tv_sec;
  a.atime_nsec = sx.stx_atime.tv_nsec;
  a.mtime_sec = sx.stx_mtime.tv_sec;
  a.mtime_nsec = sx.stx_mtime.tv_nsec;
  a.ctime_sec = sx.stx_ctime.tv_sec;
  a.ctime_nsec = sx.stx_ctime.tv_nsec;
  a.btime_sec = sx.stx_btime.tv_sec;
  a.btime_nsec = sx.stx_btime.tv_nsec;
  return a;
}

Result<> Server::Getattr(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  (void)request.U64();  // all fields are cheap
  if (!request.ok()) return Err(EPROTO);
  answer.Put(TRY(AttributesOf(fid->path.get())));
  return {};
}

Result<> Server::Setattr(Reader& request, Writer&) {
  Fid* fid = TRY(Get(request.U32()));
  p9::SetAttributes s = request.GetSetAttributes();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  int fd = fid->path.get();
  if ((s.valid & p9::kSetSize) != 0) {
    if (fid->type != S_IFREG) return Err(fid->type == S_IFDIR ? EISDIR : EINVAL);
    UniqueFd temporary;
    int writable = fid->open.get();
    if (!fid->open || (fcntl(writable, F_GETFL) & O_ACCMODE) == O_RDONLY) {
      temporary = TRY(Reopen(*fid, O_WRONLY));
      writable = temporary.get();
    }
    TRY(FromHost(ftruncate(writable, static_cast<off_t>(s.size))));
  }
  if ((s.valid & (p9::kSetUid | p9::kSetGid)) != 0) {
    TRY(FromHost(fchownat(fd, "", (s.valid & p9::kSetUid) != 0 ? s.uid : -1, (s.valid & p9::kSetGid) != 0 ? s.gid : -1,
                          AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
  }
  if ((s.valid & p9::kSetMode) != 0) {
    if (fid->type == S_IFLNK) return Err(EOPNOTSUPP);
    // fchmod does not work on O_PATH descriptors: through the magic link.
    TRY(FromHost(fchmodat(self_fd_.get(), SelfPath(*fid).c_str(), s.mode & 07777, 0)));
  }
  if ((s.valid & (p9::kSetAtime | p9::kSetMtime)) != 0) {
    timespec times[2];
    times[0] = {.tv_sec = 0, .tv_nsec = (s.valid & p9::kSetAtime) != 0 ? UTIME_NOW : UTIME_OMIT};
    times[1] = {.tv_sec = 0, .tv_nsec = (s.valid & p9::kSetMtime) != 0 ? UTIME_NOW : UTIME_OMIT};
    if ((s.valid & p9::kSetAtime) != 0 && (s.valid & p9::kSetAtimeSet) != 0) {
      if (s.atime_nsec >= 1'000'000'000) return Err(EINVAL);
      times[0] = {.tv_sec = static_cast<time_t>(s.atime_sec), .tv_nsec = static_cast<long>(s.atime_nsec)};
    }
    if ((s.valid & p9::kSetMtime) != 0 && (s.valid & p9::kSetMtimeSet) != 0) {
      if (s.mtime_nsec >= 1'000'000'000) return Err(EINVAL);
      times[1] = {.tv_sec = static_cast<time_t>(s.mtime_sec), .tv_nsec = static_cast<long>(s.mtime_nsec)};
    }
    TRY(FromHost(utimensat(fd, "", times, AT_EMPTY_PATH)));
  }
  return {};
}

Result<> Server::Readdir(Reader& request, Writer& answer) {
  Fid* fid = TRY(GetDirectory(request.U32()));
  uint64_t offset = request.U64();
  uint32_t count = std::min(request.U32(), message_size_ - p9::kIoHeaderSize);
  if (!request.ok()) return Err(EPROTO);
  if (!fid->open) return Err(EBADF);
  if (lseek(fid->open.get(), static_cast<off_t>(offset), SEEK_SET) < 0) return ErrFromHost();
  struct statx sx = TRY(Statx(fid->open.get(), "", STATX_TYPE));
  const uint64_t dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
  size_t at = answer.size();
  answer.U32(0);
  // A 9P entry (24 bytes and the name) is not longer than the host's (19 and the name, NUL, padding) by more than 5
  // bytes; what does not fit is read again by the next call.
  std::vector<char> buffer(std::min<uint32_t>(count, 32 << 10));
  ssize_t n = getdents64(fid->open.get(), buffer.data(), buffer.size());
  if (n < 0) return ErrFromHost();
  for (ssize_t i = 0; i < n;) {
    const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + i);
    size_t length = 24 + strlen(entry->d_name);
    if (answer.size() - at - sizeof(uint32_t) + length > count) break;
    p9::DirectoryEntry e;
    e.qid = MakeQid(dev, entry->d_ino, DTTOIF(entry->d_type), 0);
    e.offset = static_cast<uint64_t>(entry->d_off);
    e.type = entry->d_type;
    e.name = entry->d_name;
    answer.Put(e);
    i += entry->d_reclen;
  }
  answer.PatchU32(at, static_cast<uint32_t>(answer.size() - at - sizeof(uint32_t)));
  return {};
}

Result<> Server::Readlink(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  if (!request.ok()) return Err(EPROTO);
  if (fid->type != S_IFLNK) return Err(EINVAL);
  char target[4096];
  ssize_t n = readlinkat(fid->path.get(), "", target, sizeof(target));
  if (n < 0) return ErrFromHost();
  answer.String(std::string_view(target, n));
  return {};
}

Result<> Server::Symlink(Reader& request, Writer& answer) {
  Fid* directory = TRY(GetDirectory(request.U32()));
  std::string name = TRY(Name(request));
  std::string target = request.String();
  uint32_t gid = request.U32();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  if (target.find('\0') != std::string::npos) return Err(EINVAL);
  TRY(FromHost(symlinkat(target.c_str(), directory->path.get(), name.c_str())));
  TRY(GiveToGroup(
      fchownat(directory->path.get(), name.c_str(), -1, gid == p9::kNoUid ? -1 : gid, AT_SYMLINK_NOFOLLOW)));
  answer.Put(TRY(QidOfChild(directory->path.get(), name)));
  return {};
}

Result<> Server::Mknod(Reader& request, Writer& answer) {
  Fid* directory = TRY(GetDirectory(request.U32()));
  std::string name = TRY(Name(request));
  uint32_t mode = request.U32();
  uint32_t major = request.U32();
  uint32_t minor = request.U32();
  uint32_t gid = request.U32();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  // Regular files come by Tlcreate. A device on the host is a door that nobody needs.
  if ((mode & S_IFMT) != S_IFIFO && (mode & S_IFMT) != S_IFSOCK && (mode & S_IFMT) != S_IFREG) return Err(EPERM);
  TRY(FromHost(mknodat(directory->path.get(), name.c_str(), mode & (S_IFMT | 07777), makedev(major, minor))));
  TRY(GiveToGroup(
      fchownat(directory->path.get(), name.c_str(), -1, gid == p9::kNoUid ? -1 : gid, AT_SYMLINK_NOFOLLOW)));
  answer.Put(TRY(QidOfChild(directory->path.get(), name)));
  return {};
}

Result<> Server::Mkdir(Reader& request, Writer& answer) {
  Fid* directory = TRY(GetDirectory(request.U32()));
  std::string name = TRY(Name(request));
  uint32_t mode = request.U32();
  uint32_t gid = request.U32();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  TRY(FromHost(mkdirat(directory->path.get(), name.c_str(), mode & 07777)));
  TRY(GiveToGroup(
      fchownat(directory->path.get(), name.c_str(), -1, gid == p9::kNoUid ? -1 : gid, AT_SYMLINK_NOFOLLOW)));
  answer.Put(TRY(QidOfChild(directory->path.get(), name)));
  return {};
}

Result<> Server::Link(Reader& request, Writer&) {
  Fid* directory = TRY(GetDirectory(request.U32()));
  Fid* target = TRY(Get(request.U32()));
  std::string name = TRY(Name(request));
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  return FromHost(
      linkat(self_fd_.get(), SelfPath(*target).c_str(), directory->path.get(), name.c_str(), AT_SYMLINK_FOLLOW));
}

Result<> Server::Renameat(Reader& request, Writer&) {
  Fid* from = TRY(GetDirectory(request.U32()));
  std::string old_name = TRY(Name(request));
  Fid* to = TRY(GetDirectory(request.U32()));
  std::string new_name = TRY(Name(request));
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  return FromHost(renameat(from->path.get(), old_name.c_str(), to->path.get(), new_name.c_str()));
}

Result<> Server::Unlinkat(Reader& request, Writer&) {
  Fid* directory = TRY(GetDirectory(request.U32()));
  std::string name = TRY(Name(request));
  uint32_t flags = request.U32();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  return FromHost(unlinkat(directory->path.get(), name.c_str(), static_cast<int>(flags & AT_REMOVEDIR)));
}

Result<> Server::Fsync(Reader& request, Writer&) {
  Fid* fid = TRY(Get(request.U32()));
  // Whether the data alone would do: fdatasync(2) would be a call more that the filter allows.
  if (request.remaining() >= sizeof(uint32_t)) (void)request.U32();
  if (!request.ok()) return Err(EPROTO);
  if (!fid->open) return Err(EBADF);
  return FromHost(fsync(fid->open.get()));
}

Result<> Server::Xattrwalk(Reader& request, Writer& answer) {
  Fid* fid = TRY(Get(request.U32()));
  uint32_t number = request.U32();
  std::string name = request.String();
  if (!request.ok()) return Err(EPROTO);
  if (name.size() > kMaxXattrName || name.find('\0') != std::string::npos) return Err(ERANGE);
  if (fid->type == S_IFLNK) return Err(EOPNOTSUPP);
  std::string path = LinkPath(*fid);
  Fid value;
  value.xattr_read = true;
  value.type = fid->type;
  value.xattr_value.resize(kMaxXattr);
  ssize_t n = name.empty() ? listxattr(path.c_str(), value.xattr_value.data(), kMaxXattr)
                           : getxattr(path.c_str(), name.c_str(), value.xattr_value.data(), kMaxXattr);
  if (n < 0) return ErrFromHost();
  value.xattr_value.resize(n);
  value.xattr_value.shrink_to_fit();
  TRY(Insert(number, std::move(value)));
  answer.U64(n);
  return {};
}

Result<> Server::Xattrcreate(Reader& request, Writer&) {
  Fid* fid = TRY(Get(request.U32()));
  std::string name = request.String();
  uint64_t size = request.U64();
  uint32_t flags = request.U32();
  if (!request.ok()) return Err(EPROTO);
  TRY(CheckWritable());
  if (name.empty() || name.size() > kMaxXattrName || name.find('\0') != std::string::npos) return Err(ERANGE);
  if (size > kMaxXattr) return Err(E2BIG);
  if (fid->open || fid->type == S_IFLNK) return Err(EOPNOTSUPP);
  // Names that would change what the host does with the file are not the guest's to set.
  if (!name.starts_with("user.") && !name.starts_with("trusted.")) return Err(EOPNOTSUPP);
  fid->xattr_write = true;
  fid->xattr_name = name;
  fid->xattr_size = size;
  fid->xattr_flags = static_cast<int>(flags) & (XATTR_CREATE | XATTR_REPLACE);
  return {};
}

}  // namespace redoubt::gofer

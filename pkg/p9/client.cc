#include "pkg/p9/client.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "pkg/log/log.h"

namespace redoubt::p9 {
namespace {

// One question is on its way at a time, so one tag is enough; the clunks that go with it have those that follow.
constexpr uint16_t kTag = 1;
// Clunks that are put off until there is something else to say.
constexpr size_t kMaxDueClunks = 64;
constexpr uint32_t kMaxFid = 1u << 24;
constexpr size_t kMaxXattr = 65536;

constinit std::atomic<uint64_t> total_messages{0};

}  // namespace

Client::Client(int socket, uint32_t message_size) : socket_(socket), message_size_(message_size) {}

uint64_t Client::TotalMessages() { return total_messages.load(std::memory_order_relaxed); }

Client::~Client() { close(socket_); }

Result<std::span<const std::byte>> Client::ExchangeLocked(Writer* request, Type expected) {
  if (broken_) return Err(EIO);
  auto fail = [&](std::string_view what) -> std::unexpected<Errno> {
    LOG_ERROR("9p: {}; the connection is given up", what);
    broken_ = true;
    return Err(EIO);
  };
  std::vector<uint32_t> clunks;
  if (expected != Type::kRversion) {
    sync::MutexLock lock(fids_mu_);
    clunks.swap(due_clunks_);
  }
  std::span<const std::byte> message;
  std::vector<std::byte> batch;
  if (request != nullptr) message = request->Finish();
  if (!clunks.empty()) {
    for (size_t i = 0; i < clunks.size(); i++) {
      Writer w(Type::kTclunk, static_cast<uint16_t>(kTag + 1 + i));
      w.U32(clunks[i]);
      std::span<const std::byte> bytes = w.Finish();
      batch.insert(batch.end(), bytes.begin(), bytes.end());
    }
    batch.insert(batch.end(), message.begin(), message.end());
    message = batch;
  }
  const uint64_t sent = clunks.size() + (request != nullptr ? 1 : 0);
  messages_.fetch_add(sent, std::memory_order_relaxed);
  total_messages.fetch_add(sent, std::memory_order_relaxed);
  if (Result<> r = SendMessage(socket_, message); !r) return fail(r.error().name());

  // The answers may come in any order; mostly it is that of the questions, so that the one of interest is the last and
  // need not be copied.
  size_t open_clunks = clunks.size();
  bool answered = request == nullptr;
  Result<std::span<const std::byte>> outcome = std::span<const std::byte>();
  while (!answered || open_clunks > 0) {
    Result<std::span<const std::byte>> next = reader_.Next(socket_, message_size_);
    if (!next) return fail(next.error().name());
    Header header = ParseHeader(next->first(kHeaderSize));
    std::span<const std::byte> body = next->subspan(kHeaderSize);
    if (header.tag > kTag && header.tag - kTag - 1u < clunks.size()) {
      uint32_t& fid = clunks[header.tag - kTag - 1];
      if (fid == kNoFid || (header.type != Type::kRclunk && header.type != Type::kRlerror)) {
        return fail("an answer to no question");
      }
      // A server that cannot clunk keeps the fid: it is not used again.
      if (header.type == Type::kRclunk) FreeFid(fid);
      fid = kNoFid;
      open_clunks--;
      continue;
    }
    if (answered || header.tag != (expected == Type::kRversion ? kNoTag : kTag)) {
      return fail("an answer to no question");
    }
    answered = true;
    if (header.type == Type::kRlerror) {
      Reader r(body);
      uint32_t e = r.U32();
      if (!r.ok() || e == 0 || e > 4095) return fail("a malformed error");
      outcome = Err(static_cast<int>(e));
      continue;
    }
    if (header.type != expected) return fail("an answer of the wrong type");
    if (open_clunks > 0) {
      answer_.assign(body.begin(), body.end());
      body = answer_;
    }
    outcome = body;
  }
  return outcome;
}

template <typename Parse>
Result<> Client::Call(Writer& request, Type expected, Parse&& parse) {
  fiber::MutexLock lock(mu_);
  std::span<const std::byte> body = TRY(ExchangeLocked(&request, expected));
  Reader reader(body);
  parse(reader);
  if (reader.ok()) return {};
  LOG_ERROR("9p: a malformed answer of type {}", static_cast<int>(expected));
  return Err(EIO);
}

Result<> Client::Call(Writer& request, Type expected) {
  return Call(request, expected, [](Reader&) {});
}

Result<std::string> Client::Negotiate(std::string_view version, uint32_t message_size) {
  Writer w(Type::kTversion, kNoTag);
  w.U32(message_size).String(version);
  uint32_t agreed = 0;
  std::string answer;
  TRY(Call(w, Type::kRversion, [&](Reader& r) {
    agreed = r.U32();
    answer = r.String();
  }));
  if (agreed < kMinMessageSize || agreed > message_size) return Err(EPROTO);
  message_size_ = agreed;
  return answer;
}

Result<RefPtr<Client>> Client::Connect(int socket, uint32_t message_size, Dialect dialect) {
  message_size = std::clamp(message_size, kMinMessageSize, kMaxMessageSize);
  RefPtr<Client> client(new Client(socket, message_size));
  if (dialect == Dialect::kExtended) {
    std::string answer = TRY(client->Negotiate(kExtendedVersion, message_size));
    client->extended_ = answer == kExtendedVersion;
    if (client->extended_ || answer == kVersion) return client;
    // "unknown", from one that does not look for the period.
  }
  if (TRY(client->Negotiate(kVersion, message_size)) != kVersion) return Err(EPROTO);
  return client;
}

uint32_t Client::AllocateFid() {
  sync::MutexLock lock(fids_mu_);
  if (!free_fids_.empty()) {
    uint32_t fid = free_fids_.back();
    free_fids_.pop_back();
    return fid;
  }
  CHECK(next_fid_ < kMaxFid, "9p: too many fids");
  return next_fid_++;
}

void Client::FreeFid(uint32_t fid) {
  sync::MutexLock lock(fids_mu_);
  free_fids_.push_back(fid);
}

void Client::Clunk(uint32_t fid) {
  Writer w(Type::kTclunk, kTag);
  w.U32(fid);
  // A server that cannot clunk keeps the fid: it is not used again.
  if (Call(w, Type::kRclunk)) FreeFid(fid);
}

void Client::DeferClunk(uint32_t fid) {
  {
    sync::MutexLock lock(fids_mu_);
    due_clunks_.push_back(fid);
    if (due_clunks_.size() < kMaxDueClunks) return;
  }
  SendClunks();
}

void Client::SendClunks() {
  fiber::MutexLock lock(mu_);
  (void)ExchangeLocked(nullptr, Type::kRclunk);
}

Result<RefPtr<File>> Client::Attach(std::string_view name) {
  uint32_t fid = AllocateFid();
  Writer w(Type::kTattach, kTag);
  w.U32(fid).U32(kNoFid).String("").String(name).U32(kNoUid);
  if (Result<> r = Call(w, Type::kRattach, [](Reader& r) { (void)r.GetQid(); }); !r) {
    FreeFid(fid);
    return Err(r.error());
  }
  return RefPtr<File>(new File(RefPtr<Client>(this), fid));
}

File::File(RefPtr<Client> client, uint32_t fid) : client_(std::move(client)), fid_(fid) {}

File::~File() {
  if (clunked_) {
    client_->FreeFid(fid_);
  } else if (writable_) {
    client_->Clunk(fid_);
  } else {
    client_->DeferClunk(fid_);
  }
}

Result<RefPtr<File>> File::Walk(const std::vector<std::string>& names, std::vector<Qid>* qids) {
  if (names.size() > kMaxWalkElements) return Err(EINVAL);
  uint32_t fid = client_->AllocateFid();
  Writer w(Type::kTwalk, kTag);
  w.U32(fid_).U32(fid).U16(static_cast<uint16_t>(names.size()));
  for (const std::string& name : names) w.String(name);
  std::vector<Qid> found;
  Result<> r = client_->Call(w, Type::kRwalk, [&](Reader& r) {
    size_t n = r.U16();
    for (size_t i = 0; i < n && r.ok() && i < kMaxWalkElements; i++) found.push_back(r.GetQid());
  });
  // A walk that stops half way is no error to the protocol, but no new fid either.
  if (r && found.size() != names.size()) r = Err(ENOENT);
  if (!r) {
    client_->FreeFid(fid);
    return Err(r.error());
  }
  if (qids != nullptr) *qids = std::move(found);
  return RefPtr<File>(new File(client_, fid));
}

Result<File::Found> File::WalkGetAttributes(const std::vector<std::string>& names) {
  if (!client_->extended()) {
    RefPtr<File> file = TRY(Walk(names));
    Attributes attributes = TRY(file->GetAttributes());
    return Found{std::move(file), attributes};
  }
  uint32_t fid = client_->AllocateFid();
  Result<Attributes> attributes = WalkGetAttributesTo(fid, names);
  if (!attributes) {
    client_->FreeFid(fid);
    return Err(attributes.error());
  }
  return Found{RefPtr<File>(new File(client_, fid)), *attributes};
}

Result<Attributes> File::GetAttributesOf(const std::vector<std::string>& names) {
  if (client_->extended()) return WalkGetAttributesTo(kNoFid, names);
  return TRY(WalkGetAttributes(names)).attributes;
}

Result<Attributes> File::WalkGetAttributesTo(uint32_t fid, const std::vector<std::string>& names) {
  if (names.size() > kMaxWalkElements) return Err(EINVAL);
  Writer w(Type::kTwalkgetattr, kTag);
  w.U32(fid_).U32(fid).U16(static_cast<uint16_t>(names.size()));
  for (const std::string& name : names) w.String(name);
  Attributes attributes;
  size_t found = 0;
  TRY(client_->Call(w, Type::kRwalkgetattr, [&](Reader& r) {
    found = r.U16();
    if (found == names.size()) attributes = r.GetAttributes();
  }));
  // A walk that stops half way is no error to the protocol.
  if (found != names.size()) return Err(ENOENT);
  return attributes;
}

Result<RefPtr<File>> File::OpenCopy(uint32_t flags, Attributes* attributes) {
  if (!client_->extended()) {
    RefPtr<File> file = TRY(Walk({}));
    TRY(file->Open(flags));
    if (attributes != nullptr) *attributes = TRY(file->GetAttributes());
    return file;
  }
  uint32_t fid = client_->AllocateFid();
  Writer w(Type::kTopencopy, kTag);
  w.U32(fid_).U32(fid).U32(flags);
  Attributes a;
  if (Result<> r = client_->Call(w, Type::kRopencopy, [&](Reader& r) { a = r.GetAttributes(); }); !r) {
    client_->FreeFid(fid);
    return Err(r.error());
  }
  if (attributes != nullptr) *attributes = a;
  RefPtr<File> file(new File(client_, fid));
  file->writable_ = (flags & O_ACCMODE) != O_RDONLY;
  return file;
}

Result<Attributes> File::GetAttributes() {
  Writer w(Type::kTgetattr, kTag);
  w.U32(fid_).U64(kGetattrBasic | kGetattrBtime);
  Attributes a;
  TRY(client_->Call(w, Type::kRgetattr, [&](Reader& r) { a = r.GetAttributes(); }));
  return a;
}

Result<> File::SetAttributes(const p9::SetAttributes& change) {
  Writer w(Type::kTsetattr, kTag);
  w.U32(fid_).Put(change);
  return client_->Call(w, Type::kRsetattr);
}

Result<> File::Open(uint32_t flags) {
  if ((flags & O_ACCMODE) != O_RDONLY) writable_ = true;
  Writer w(Type::kTlopen, kTag);
  w.U32(fid_).U32(flags);
  return client_->Call(w, Type::kRlopen, [](Reader& r) {
    (void)r.GetQid();
    (void)r.U32();
  });
}

Result<> File::Create(std::string_view name, uint32_t flags, uint32_t mode, uint32_t gid) {
  writable_ = true;
  Writer w(Type::kTlcreate, kTag);
  w.U32(fid_).String(name).U32(flags).U32(mode).U32(gid);
  return client_->Call(w, Type::kRlcreate, [](Reader& r) {
    (void)r.GetQid();
    (void)r.U32();
  });
}

Result<Qid> File::Mkdir(std::string_view name, uint32_t mode, uint32_t gid) {
  Writer w(Type::kTmkdir, kTag);
  w.U32(fid_).String(name).U32(mode).U32(gid);
  Qid qid;
  TRY(client_->Call(w, Type::kRmkdir, [&](Reader& r) { qid = r.GetQid(); }));
  return qid;
}

Result<Qid> File::Mknod(std::string_view name, uint32_t mode, uint32_t major, uint32_t minor, uint32_t gid) {
  Writer w(Type::kTmknod, kTag);
  w.U32(fid_).String(name).U32(mode).U32(major).U32(minor).U32(gid);
  Qid qid;
  TRY(client_->Call(w, Type::kRmknod, [&](Reader& r) { qid = r.GetQid(); }));
  return qid;
}

Result<Qid> File::Symlink(std::string_view name, std::string_view target, uint32_t gid) {
  Writer w(Type::kTsymlink, kTag);
  w.U32(fid_).String(name).String(target).U32(gid);
  Qid qid;
  TRY(client_->Call(w, Type::kRsymlink, [&](Reader& r) { qid = r.GetQid(); }));
  return qid;
}

Result<> File::Link(std::string_view name, File& target) {
  Writer w(Type::kTlink, kTag);
  w.U32(fid_).U32(target.fid_).String(name);
  return client_->Call(w, Type::kRlink);
}

Result<> File::RenameAt(std::string_view old_name, File& new_directory, std::string_view new_name) {
  Writer w(Type::kTrenameat, kTag);
  w.U32(fid_).String(old_name).U32(new_directory.fid_).String(new_name);
  return client_->Call(w, Type::kRrenameat);
}

Result<> File::UnlinkAt(std::string_view name, uint32_t flags) {
  Writer w(Type::kTunlinkat, kTag);
  w.U32(fid_).String(name).U32(flags);
  return client_->Call(w, Type::kRunlinkat);
}

Result<std::string> File::Readlink() {
  Writer w(Type::kTreadlink, kTag);
  w.U32(fid_);
  std::string target;
  TRY(client_->Call(w, Type::kRreadlink, [&](Reader& r) { target = r.String(); }));
  return target;
}

Result<size_t> File::Read(std::span<std::byte> dst, uint64_t offset) {
  return Read(dst.size(), offset, [dst](std::span<const std::byte> data) -> Result<> {
    std::memcpy(dst.data(), data.data(), data.size());
    return {};
  });
}

Result<size_t> File::Read(size_t want, uint64_t offset,
                          const std::function<Result<>(std::span<const std::byte>)>& take) {
  want = std::min<size_t>(want, client_->max_io());
  Writer w(Type::kTread, kTag);
  w.U32(fid_).U64(offset).U32(static_cast<uint32_t>(want));
  Result<size_t> got = 0;
  TRY(client_->Call(w, Type::kRread, [&](Reader& r) {
    const std::span<const std::byte> data = r.Bytes(r.U32());
    if (data.size() > want) {
      got = Err(EIO);
    } else if (Result<> taken = r.ok() ? take(data) : Result<>(); !taken) {
      got = Err(taken.error());
    } else {
      got = data.size();
    }
  }));
  return got;
}

Result<size_t> File::Write(std::span<const std::byte> src, uint64_t offset) {
  src = src.first(std::min<size_t>(src.size(), client_->max_io()));
  Writer w(Type::kTwrite, kTag);
  w.U32(fid_).U64(offset).U32(static_cast<uint32_t>(src.size())).Bytes(src);
  uint32_t n = 0;
  TRY(client_->Call(w, Type::kRwrite, [&](Reader& r) { n = r.U32(); }));
  if (n > src.size()) return Err(EIO);
  return n;
}

Result<> File::Fsync(bool data_only) {
  Writer w(Type::kTfsync, kTag);
  w.U32(fid_).U32(data_only ? 1 : 0);
  return client_->Call(w, Type::kRfsync);
}

Result<std::vector<DirectoryEntry>> File::Readdir(uint64_t offset) {
  Writer w(Type::kTreaddir, kTag);
  w.U32(fid_).U64(offset).U32(std::min<uint32_t>(client_->max_io(), 64 << 10));
  std::vector<DirectoryEntry> entries;
  TRY(client_->Call(w, Type::kRreaddir, [&](Reader& r) {
    uint32_t n = r.U32();
    Reader data(r.Bytes(n));
    while (data.ok() && !data.at_end()) {
      DirectoryEntry e = data.GetDirectoryEntry();
      if (data.ok()) entries.push_back(std::move(e));
    }
  }));
  return entries;
}

Result<Statfs> File::GetStatfs() {
  Writer w(Type::kTstatfs, kTag);
  w.U32(fid_);
  Statfs s;
  TRY(client_->Call(w, Type::kRstatfs, [&](Reader& r) { s = r.GetStatfs(); }));
  return s;
}

Result<std::string> File::ReadXattr(std::string_view name) {
  uint32_t fid = client_->AllocateFid();
  Writer w(Type::kTxattrwalk, kTag);
  w.U32(fid_).U32(fid).String(name);
  uint64_t size = 0;
  if (Result<> r = client_->Call(w, Type::kRxattrwalk, [&](Reader& r) { size = r.U64(); }); !r) {
    client_->FreeFid(fid);
    return Err(r.error());
  }
  RefPtr<File> value(new File(client_, fid));
  if (size > kMaxXattr) return Err(E2BIG);
  std::string text(size, '\0');
  size_t got = 0;
  while (got < size) {
    size_t n = TRY(value->Read(std::as_writable_bytes(std::span(text)).subspan(got), got));
    if (n == 0) break;
    got += n;
  }
  text.resize(got);
  return text;
}

Result<std::string> File::GetXattr(std::string_view name) {
  if (name.empty()) return Err(EINVAL);
  return ReadXattr(name);
}

Result<std::vector<std::string>> File::ListXattr() {
  std::string joined = TRY(ReadXattr(""));
  std::vector<std::string> names;
  for (size_t at = 0; at < joined.size();) {
    size_t end = std::min(joined.find('\0', at), joined.size());
    names.push_back(joined.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

Result<> File::SetXattr(std::string_view name, std::string_view value, uint32_t flags) {
  // xattrcreate turns the fid into the attribute's; the write is applied when it is clunked.
  RefPtr<File> attribute = TRY(Walk({}));
  Writer w(Type::kTxattrcreate, kTag);
  w.U32(attribute->fid_).String(name).U64(value.size()).U32(flags);
  TRY(client_->Call(w, Type::kRxattrcreate));
  std::span<const std::byte> bytes = std::as_bytes(std::span(value));
  size_t done = 0;
  while (done < bytes.size()) {
    size_t n = TRY(attribute->Write(bytes.subspan(done), done));
    if (n == 0) return Err(EIO);
    done += n;
  }
  Writer clunk(Type::kTclunk, kTag);
  clunk.U32(attribute->fid_);
  Result<> r = client_->Call(clunk, Type::kRclunk);
  // 9P: a fid is gone after a clunk, even a failed one.
  attribute->clunked_ = true;
  return r;
}

}  // namespace redoubt::p9

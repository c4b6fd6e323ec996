#include "pkg/p9/protocol.h"

#include <cstring>

namespace redoubt::p9 {

Writer::Writer(Type type, uint16_t tag) {
  bytes_.reserve(128);
  Reset(type, tag);
}

void Writer::Reset(Type type, uint16_t tag) {
  bytes_.clear();
  U32(0).U8(static_cast<uint8_t>(type)).U16(tag);
}

// x86-64 is little-endian, as the protocol is.
Writer& Writer::U8(uint8_t v) { return Bytes(std::as_bytes(std::span(&v, 1))); }
Writer& Writer::U16(uint16_t v) { return Bytes(std::as_bytes(std::span(&v, 1))); }
Writer& Writer::U32(uint32_t v) { return Bytes(std::as_bytes(std::span(&v, 1))); }
Writer& Writer::U64(uint64_t v) { return Bytes(std::as_bytes(std::span(&v, 1))); }

Writer& Writer::String(std::string_view s) {
  U16(static_cast<uint16_t>(s.size()));
  return Bytes(std::as_bytes(std::span(s)));
}

Writer& Writer::Bytes(std::span<const std::byte> b) {
  bytes_.insert(bytes_.end(), b.begin(), b.end());
  return *this;
}

std::span<std::byte> Writer::Reserve(size_t n) {
  size_t at = bytes_.size();
  bytes_.resize(at + n, boost::container::default_init);
  return std::span(bytes_).subspan(at, n);
}

void Writer::PatchU32(size_t at, uint32_t v) { std::memcpy(bytes_.data() + at, &v, sizeof(v)); }

std::span<const std::byte> Writer::Finish() {
  PatchU32(0, static_cast<uint32_t>(bytes_.size()));
  return bytes_;
}

Writer& Writer::Put(const Qid& v) { return U8(v.type).U32(v.version).U64(v.path); }

Writer& Writer::Put(const Attributes& v) {
  return U64(v.valid)
      .Put(v.qid)
      .U32(v.mode)
      .U32(v.uid)
      .U32(v.gid)
      .U64(v.nlink)
      .U64(v.rdev)
      .U64(v.size)
      .U64(v.blksize)
      .U64(v.blocks)
      .U64(v.atime_sec)
      .U64(v.atime_nsec)
      .U64(v.mtime_sec)
      .U64(v.mtime_nsec)
      .U64(v.ctime_sec)
      .U64(v.ctime_nsec)
      .U64(v.btime_sec)
      .U64(v.btime_nsec)
      .U64(0)   // gen
      .U64(0);  // data_version
}

Writer& Writer::Put(const SetAttributes& v) {
  return U32(v.valid)
      .U32(v.mode)
      .U32(v.uid)
      .U32(v.gid)
      .U64(v.size)
      .U64(v.atime_sec)
      .U64(v.atime_nsec)
      .U64(v.mtime_sec)
      .U64(v.mtime_nsec);
}

Writer& Writer::Put(const Statfs& v) {
  return U32(v.type).U32(v.bsize).U64(v.blocks).U64(v.bfree).U64(v.bavail).U64(v.files).U64(v.ffree).U64(v.fsid).U32(
      v.namelen);
}

Writer& Writer::Put(const DirectoryEntry& v) { return Put(v.qid).U64(v.offset).U8(v.type).String(v.name); }

template <typename T>
T Reader::Integer() {
  T v{};
  std::span<const std::byte> b = Bytes(sizeof(T));
  if (b.size() == sizeof(T)) std::memcpy(&v, b.data(), sizeof(T));
  return v;
}

uint8_t Reader::U8() { return Integer<uint8_t>(); }
uint16_t Reader::U16() { return Integer<uint16_t>(); }
uint32_t Reader::U32() { return Integer<uint32_t>(); }
uint64_t Reader::U64() { return Integer<uint64_t>(); }

std::string Reader::String() {
  std::span<const std::byte> b = Bytes(U16());
  return std::string(reinterpret_cast<const char*>(b.data()), b.size());
}

std::span<const std::byte> Reader::Bytes(size_t n) {
  if (!ok_ || n > bytes_.size()) {
    ok_ = false;
    bytes_ = {};
    return {};
  }
  std::span<const std::byte> b = bytes_.first(n);
  bytes_ = bytes_.subspan(n);
  return b;
}

Qid Reader::GetQid() {
  Qid q;
  q.type = U8();
  q.version = U32();
  q.path = U64();
  return q;
}

Attributes Reader::GetAttributes() {
  Attributes a;
  a.valid = U64();
  a.qid = GetQid();
  a.mode = U32();
  a.uid = U32();
  a.gid = U32();
  a.nlink = U64();
  a.rdev = U64();
  a.size = U64();
  a.blksize = U64();
  a.blocks = U64();
  a.atime_sec = U64();
  a.atime_nsec = U64();
  a.mtime_sec = U64();
  a.mtime_nsec = U64();
  a.ctime_sec = U64();
  a.ctime_nsec = U64();
  a.btime_sec = U64();
  a.btime_nsec = U64();
  (void)U64();
  (void)U64();
  return a;
}

SetAttributes Reader::GetSetAttributes() {
  SetAttributes s;
  s.valid = U32();
  s.mode = U32();
  s.uid = U32();
  s.gid = U32();
  s.size = U64();
  s.atime_sec = U64();
  s.atime_nsec = U64();
  s.mtime_sec = U64();
  s.mtime_nsec = U64();
  return s;
}

Statfs Reader::GetStatfs() {
  Statfs s;
  s.type = U32();
  s.bsize = U32();
  s.blocks = U64();
  s.bfree = U64();
  s.bavail = U64();
  s.files = U64();
  s.ffree = U64();
  s.fsid = U64();
  s.namelen = U32();
  return s;
}

DirectoryEntry Reader::GetDirectoryEntry() {
  DirectoryEntry e;
  e.qid = GetQid();
  e.offset = U64();
  e.type = U8();
  e.name = String();
  return e;
}

Header ParseHeader(std::span<const std::byte> bytes) {
  Reader r(bytes);
  Header h;
  h.size = r.U32();
  h.type = static_cast<Type>(r.U8());
  h.tag = r.U16();
  return h;
}

bool IsValidName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameLength && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace redoubt::p9

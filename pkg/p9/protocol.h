// 9P2000.L: message types, structures and their wire format. github.com/chaos/diod/blob/master/protocol.md is the
// protocol's description; Linux's v9fs its best known client.
#ifndef REDOUBT_PKG_P9_PROTOCOL_H_
#define REDOUBT_PKG_P9_PROTOCOL_H_

#include <boost/container/vector.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace redoubt::p9 {

enum class Type : uint8_t {
  kRlerror = 7,
  kTstatfs = 8,
  kRstatfs = 9,
  kTlopen = 12,
  kRlopen = 13,
  kTlcreate = 14,
  kRlcreate = 15,
  kTsymlink = 16,
  kRsymlink = 17,
  kTmknod = 18,
  kRmknod = 19,
  kTrename = 20,
  kRrename = 21,
  kTreadlink = 22,
  kRreadlink = 23,
  kTgetattr = 24,
  kRgetattr = 25,
  kTsetattr = 26,
  kRsetattr = 27,
  kTxattrwalk = 30,
  kRxattrwalk = 31,
  kTxattrcreate = 32,
  kRxattrcreate = 33,
  kTreaddir = 40,
  kRreaddir = 41,
  kTfsync = 50,
  kRfsync = 51,
  kTlock = 52,
  kRlock = 53,
  kTgetlock = 54,
  kRgetlock = 55,
  kTlink = 70,
  kRlink = 71,
  kTmkdir = 72,
  kRmkdir = 73,
  kTrenameat = 74,
  kRrenameat = 75,
  kTunlinkat = 76,
  kRunlinkat = 77,
  kTversion = 100,
  kRversion = 101,
  kTauth = 102,
  kTattach = 104,
  kRattach = 105,
  kTflush = 108,
  kRflush = 109,
  kTwalk = 110,
  kRwalk = 111,
  kTread = 116,
  kRread = 117,
  kTwrite = 118,
  kRwrite = 119,
  kTclunk = 120,
  kRclunk = 121,
  kTremove = 122,
  kRremove = 123,
  // Only where both sides have agreed on kExtendedVersion:
  // fid[4] newfid[4] nwname[2] nwname*(wname[s]); nwname[2] and, if all were found, the last one's attributes. A Twalk
  // and a Tgetattr. With kNoFid for newfid only the attributes are asked for.
  kTwalkgetattr = 130,
  kRwalkgetattr = 131,
  // fid[4] newfid[4] flags[4]; the file's attributes. A Twalk of no names, a Tlopen and a Tgetattr.
  kTopencopy = 132,
  kRopencopy = 133,
};

inline constexpr std::string_view kVersion = "9P2000.L";
// version(5): a server that does not know what follows the last period leaves it out of its answer.
inline constexpr std::string_view kExtendedVersion = "9P2000.L.redoubt";
inline constexpr uint16_t kNoTag = 0xffff;
inline constexpr uint32_t kNoFid = 0xffffffff;
inline constexpr uint32_t kNoUid = 0xffffffff;
inline constexpr size_t kHeaderSize = 7;  // size[4] type[1] tag[2]
inline constexpr size_t kMaxWalkElements = 16;
inline constexpr size_t kMaxNameLength = 255;
inline constexpr uint32_t kMinMessageSize = 4096;
inline constexpr uint32_t kMaxMessageSize = (1 << 20) + 4096;
// Tread and Rwrite framing beyond the data.
inline constexpr uint32_t kIoHeaderSize = 24;

// Qid::type bits.
inline constexpr uint8_t kQidDirectory = 0x80;
inline constexpr uint8_t kQidSymlink = 0x02;
inline constexpr uint8_t kQidFile = 0x00;

struct Qid {
  uint8_t type = 0;
  uint32_t version = 0;
  uint64_t path = 0;
};

// Tgetattr's request_mask and Rgetattr's valid.
inline constexpr uint64_t kGetattrBasic = 0x7ff;
inline constexpr uint64_t kGetattrBtime = 0x800;

struct Attributes {
  uint64_t valid = 0;
  Qid qid;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t nlink = 0;
  uint64_t rdev = 0;
  uint64_t size = 0;
  uint64_t blksize = 0;
  uint64_t blocks = 0;
  uint64_t atime_sec = 0, atime_nsec = 0;
  uint64_t mtime_sec = 0, mtime_nsec = 0;
  uint64_t ctime_sec = 0, ctime_nsec = 0;
  uint64_t btime_sec = 0, btime_nsec = 0;
};

// Tsetattr's valid.
inline constexpr uint32_t kSetMode = 0x1;
inline constexpr uint32_t kSetUid = 0x2;
inline constexpr uint32_t kSetGid = 0x4;
inline constexpr uint32_t kSetSize = 0x8;
inline constexpr uint32_t kSetAtime = 0x10;
inline constexpr uint32_t kSetMtime = 0x20;
inline constexpr uint32_t kSetCtime = 0x40;
inline constexpr uint32_t kSetAtimeSet = 0x80;
inline constexpr uint32_t kSetMtimeSet = 0x100;

struct SetAttributes {
  uint32_t valid = 0;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;
  uint64_t atime_sec = 0, atime_nsec = 0;
  uint64_t mtime_sec = 0, mtime_nsec = 0;
};

struct Statfs {
  uint32_t type = 0;
  uint32_t bsize = 0;
  uint64_t blocks = 0, bfree = 0, bavail = 0, files = 0, ffree = 0, fsid = 0;
  uint32_t namelen = 0;
};

struct DirectoryEntry {
  Qid qid;
  uint64_t offset = 0;  // to continue after this entry
  uint8_t type = 0;     // DT_*
  std::string name;
};

// Appends little-endian fields.
class Writer final {
 public:
  explicit Writer(Type type, uint16_t tag);
  // Starts anew, with the memory it has.
  void Reset(Type type, uint16_t tag);
  Writer& U8(uint8_t v);
  Writer& U16(uint16_t v);
  Writer& U32(uint32_t v);
  Writer& U64(uint64_t v);
  // At most 65535 bytes: the caller has checked.
  Writer& String(std::string_view s);
  Writer& Bytes(std::span<const std::byte> b);
  Writer& Put(const Qid& v);
  Writer& Put(const Attributes& v);
  Writer& Put(const SetAttributes& v);
  Writer& Put(const Statfs& v);
  Writer& Put(const DirectoryEntry& v);
  // For data whose length is known only afterwards: `n` bytes to be filled by the caller, or shrunk away.
  std::span<std::byte> Reserve(size_t n);
  void Shrink(size_t size) { bytes_.resize(size, boost::container::default_init); }
  void PatchU32(size_t at, uint32_t v);
  size_t size() const { return bytes_.size(); }
  // The whole message, its size filled in.
  std::span<const std::byte> Finish();

 private:
  boost::container::vector<std::byte> bytes_;  // which can grow without being filled
};

// Reads what Writer wrote, from an untrusted peer: past the end or over a limit, ok() turns false for good and values
// are zero.
class Reader final {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint8_t U8();
  uint16_t U16();
  uint32_t U32();
  uint64_t U64();
  std::string String();
  std::span<const std::byte> Bytes(size_t n);
  Qid GetQid();
  Attributes GetAttributes();
  SetAttributes GetSetAttributes();
  Statfs GetStatfs();
  DirectoryEntry GetDirectoryEntry();

  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }
  size_t remaining() const { return bytes_.size(); }

 private:
  template <typename T>
  T Integer();

  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

struct Header {
  uint32_t size = 0;
  Type type = Type::kRlerror;
  uint16_t tag = 0;
};
// From the first kHeaderSize bytes.
Header ParseHeader(std::span<const std::byte> bytes);

// A name that may be a directory entry: not empty, not "." or "..", no '/', no NUL, at most kMaxNameLength bytes.
bool IsValidName(std::string_view name);

}  // namespace redoubt::p9

#endif  // REDOUBT_PKG_P9_PROTOCOL_H_

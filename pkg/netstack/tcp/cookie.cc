#include "pkg/netstack/tcp/cookie.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace redoubt::netstack::tcp {

namespace {

constexpr Time kPeriod = 64 * kSecond;
// The values that three bits choose from, common ones (Linux has four per IP version).
constexpr uint16_t kMssTable[8] = {216, 536, 1024, 1220, 1380, 1440, 1460, 8960};
constexpr uint32_t kNoScale = 15;

}  // namespace

uint64_t HashTuple(const HashKey& key, const FourTuple& id, uint64_t extra) {
  std::array<std::byte, 2 * Address::kIpv6Size + 12> data{};
  std::ranges::copy(id.local.bytes(), data.begin());
  std::ranges::copy(id.remote.bytes(), data.begin() + Address::kIpv6Size);
  std::byte* p = data.data() + 2 * Address::kIpv6Size;
  std::memcpy(p, &id.local_port, 2);
  std::memcpy(p + 2, &id.remote_port, 2);
  std::memcpy(p + 4, &extra, 8);
  return SipHash(key, data);
}

Seq CookieJar::InitialSequence(const FourTuple& id, Time now) const {
  return static_cast<Seq>(HashTuple(isn_key_, id)) + static_cast<Seq>(now >> 8);
}

uint32_t CookieJar::TimestampOffset(const FourTuple& id) const {
  FourTuple hosts = id;
  hosts.local_port = hosts.remote_port = 0;
  return static_cast<uint32_t>(HashTuple(ts_key_, hosts));
}

uint32_t CookieJar::SynHash(const FourTuple& id, Seq irs, uint32_t period, uint32_t mss_index) const {
  uint64_t extra = uint64_t{irs} << 32 | static_cast<uint32_t>(period << 3) | mss_index;
  return static_cast<uint32_t>(HashTuple(syn_key_, id, extra)) & 0xffffff;
}

Seq CookieJar::SynCookie(const FourTuple& id, Seq irs, uint16_t mss, Time now) const {
  uint32_t index = 0;
  while (index < 7 && kMssTable[index + 1] <= mss) index++;
  uint32_t period = static_cast<uint32_t>(now / kPeriod);
  return (period & 31) << 27 | index << 24 | SynHash(id, irs, period, index);
}

std::optional<uint16_t> CookieJar::CheckSynCookie(const FourTuple& id, Seq irs, Seq cookie, Time now) const {
  uint32_t index = cookie >> 24 & 7;
  uint32_t period = static_cast<uint32_t>(now / kPeriod);
  for (uint32_t age = 0; age < 2; age++) {
    if (((period - age) & 31) != cookie >> 27) continue;
    if (SynHash(id, irs, period - age, index) == (cookie & 0xffffff)) return kMssTable[index];
  }
  return std::nullopt;
}

uint32_t CookieJar::PackOptions(uint32_t timestamp, const Options& options) {
  uint32_t bits = options.window_scale ? *options.window_scale : kNoScale;
  if (options.sack_permitted) bits |= 0x10;
  // Never ahead of the clock, which later segments' timestamps come from.
  uint32_t packed = (timestamp & ~kTimestampBits) | bits;
  return SeqGt(packed, timestamp) ? packed - (kTimestampBits + 1) : packed;
}

Options CookieJar::UnpackOptions(uint32_t timestamp) {
  Options o;
  o.timestamp = true;
  if ((timestamp & 0xf) != kNoScale) o.window_scale = std::min<uint8_t>(timestamp & 0xf, 14);
  o.sack_permitted = (timestamp & 0x10) != 0;
  return o;
}

FastOpenCookie CookieJar::OpenCookie(const Address& client) const {
  FastOpenCookie cookie;
  cookie.length = 8;
  uint64_t hash = SipHash(open_key_, client.bytes());
  std::memcpy(cookie.bytes.data(), &hash, 8);
  return cookie;
}

}  // namespace redoubt::netstack::tcp

#include "pkg/netstack/clock/random.h"

#include <bit>
#include <cstring>

namespace redoubt::netstack {

uint32_t RandomSource::U32() {
  uint32_t v;
  Fill(std::as_writable_bytes(std::span(&v, 1)));
  return v;
}

uint64_t RandomSource::U64() {
  uint64_t v;
  Fill(std::as_writable_bytes(std::span(&v, 1)));
  return v;
}

uint32_t RandomSource::Below(uint32_t bound) {
  // Reject what would make low numbers likelier.
  uint32_t threshold = -bound % bound;
  for (;;) {
    uint32_t v = U32();
    if (v >= threshold) return v % bound;
  }
}

void SeededRandom::Fill(std::span<std::byte> out) {
  sync::MutexLock lock(mu_);
  while (!out.empty()) {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    size_t n = std::min(out.size(), sizeof(z));
    std::memcpy(out.data(), &z, n);
    out = out.subspan(n);
  }
}

HashKey NewHashKey(RandomSource& random) { return {random.U64(), random.U64()}; }

uint64_t SipHash(const HashKey& key, std::span<const std::byte> data) {
  uint64_t v0 = key[0] ^ 0x736f6d6570736575;
  uint64_t v1 = key[1] ^ 0x646f72616e646f6d;
  uint64_t v2 = key[0] ^ 0x6c7967656e657261;
  uint64_t v3 = key[1] ^ 0x7465646279746573;
  auto round = [&] {
    v0 += v1, v1 = std::rotl(v1, 13) ^ v0, v0 = std::rotl(v0, 32);
    v2 += v3, v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3, v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1, v1 = std::rotl(v1, 17) ^ v2, v2 = std::rotl(v2, 32);
  };
  auto compress = [&](uint64_t m) {
    v3 ^= m;
    round(), round();
    v0 ^= m;
  };
  uint64_t tail = uint64_t{data.size()} << 56;
  for (; data.size() >= 8; data = data.subspan(8)) {
    uint64_t m;
    std::memcpy(&m, data.data(), 8);
    compress(m);
  }
  for (size_t i = 0; i < data.size(); i++) tail |= static_cast<uint64_t>(data[i]) << (8 * i);
  compress(tail);
  v2 ^= 0xff;
  round(), round(), round(), round();
  return v0 ^ v1 ^ v2 ^ v3;
}

}  // namespace redoubt::netstack

#include "pkg/netstack/checksum/checksum.h"

#include <cstring>

namespace redoubt::netstack {

namespace {

// Two 64-bit lanes: every x86-64 has them, and the compiler makes wider ones where it may.
typedef uint64_t Lanes __attribute__((vector_size(16)));

// The sum in the machine's own byte order; swapping the bytes of the folded result gives that of the other order (RFC
// 1071 section 2).
uint64_t NativeSum(std::span<const std::byte> bytes) {
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  uint64_t sum = 0;
  if (n >= 64) {
    // 32-bit halves are added into 64-bit lanes: no carry is lost before 2^32 of them.
    Lanes low{}, high{}, low2{}, high2{};
    const Lanes mask = {0xffffffff, 0xffffffff};
    while (n >= 32) {
      Lanes a, b;
      std::memcpy(&a, p, 16);
      std::memcpy(&b, p + 16, 16);
      low += a & mask;
      high += a >> 32;
      low2 += b & mask;
      high2 += b >> 32;
      p += 32;
      n -= 32;
    }
    low += low2;
    high += high2;
    low += high;
    sum = low[0] + low[1];
  }
  while (n >= 4) {
    uint32_t word;
    std::memcpy(&word, p, 4);
    sum += word;
    p += 4;
    n -= 4;
  }
  if (n >= 2) {
    uint16_t word;
    std::memcpy(&word, p, 2);
    sum += word;
    p += 2;
    n -= 2;
  }
  if (n == 1) {
    uint16_t word = 0;
    std::memcpy(&word, p, 1);
    sum += word;
  }
  return sum;
}

constexpr uint16_t ToBigEndian(uint16_t native) {
  return std::endian::native == std::endian::little ? static_cast<uint16_t>(native << 8 | native >> 8) : native;
}

}  // namespace

uint16_t Sum(std::span<const std::byte> bytes, uint16_t initial) {
  return CombineSums(ToBigEndian(FoldSum(NativeSum(bytes))), initial);
}

uint16_t Sum(const Buffer& data, size_t offset, uint16_t initial) {
  uint64_t sum = initial;
  bool odd = false;
  for (size_t i = 0; i < data.view_count(); i++) {
    std::span<const std::byte> view = data.view(i);
    if (offset >= view.size()) {
      offset -= view.size();
      continue;
    }
    view = view.subspan(offset);
    offset = 0;
    uint16_t part = Sum(view);
    // Where the view begins in the middle of a word, its bytes have changed halves.
    sum += odd ? static_cast<uint16_t>(part << 8 | part >> 8) : part;
    odd ^= (view.size() & 1) != 0;
  }
  return FoldSum(sum);
}

uint16_t PseudoHeaderSum(std::span<const std::byte> source, std::span<const std::byte> destination, uint8_t protocol,
                         uint32_t length) {
  return FoldSum(uint64_t{Sum(source)} + Sum(destination) + protocol + (length >> 16) + (length & 0xffff));
}

}  // namespace redoubt::netstack

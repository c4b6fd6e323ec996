// The kernel's struct termios and winsize: glibc's differ. ioctl_tty(2), asm-generic/termbits.h.
#ifndef REDOUBT_PKG_ABI_LINUX_TERMIOS_H_
#define REDOUBT_PKG_ABI_LINUX_TERMIOS_H_

#include <cstdint>

namespace redoubt::abi {

inline constexpr int kTermiosControls = 19;

struct Termios {
  uint32_t c_iflag;
  uint32_t c_oflag;
  uint32_t c_cflag;
  uint32_t c_lflag;
  uint8_t c_line;
  uint8_t c_cc[kTermiosControls];
};
static_assert(sizeof(Termios) == 36);

struct Termios2 {
  uint32_t c_iflag;
  uint32_t c_oflag;
  uint32_t c_cflag;
  uint32_t c_lflag;
  uint8_t c_line;
  uint8_t c_cc[kTermiosControls];
  uint32_t c_ispeed;
  uint32_t c_ospeed;
};
static_assert(sizeof(Termios2) == 44);

struct WindowSize {
  uint16_t rows;
  uint16_t columns;
  uint16_t x_pixels;
  uint16_t y_pixels;
};

// Commands that glibc's headers lack or name after its own struct.
inline constexpr uint32_t kTcgets2 = 0x802c542a;
inline constexpr uint32_t kTcsets2 = 0x402c542b;
inline constexpr uint32_t kTcsetsw2 = 0x402c542c;
inline constexpr uint32_t kTcsetsf2 = 0x402c542d;

}  // namespace redoubt::abi

#endif  // REDOUBT_PKG_ABI_LINUX_TERMIOS_H_

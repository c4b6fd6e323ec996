// The host's kernel and this library agree on filters of sockets: on which are good ones, and on what those return. A
// datagram to a socket with a filter is cut to as many bytes as that returns, or lost.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "pkg/bpf/bpf.h"
#include "pkg/bpf/packet_of_bytes.h"
#include "pkg/bpf/random_program.h"

namespace redoubt::bpf {
namespace {

constexpr uint32_t kWords = 24;
constexpr size_t kSize = 4200;  // more than a program returns here

class PacketHost : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds_.data()), 0); }
  void TearDown() override {
    for (int fd : fds_) close(fd);
  }
  // errno, or 0.
  int Attach(const Code& code) const {
    Code copy = code;
    sock_fprog program{static_cast<unsigned short>(copy.size()), copy.data()};
    return setsockopt(fds_[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0 ? 0 : errno;
  }
  // As many bytes as came through.
  size_t Pass(std::span<const std::byte> bytes) const {
    EXPECT_EQ(send(fds_[0], bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    std::byte room[1];
    const ssize_t n = recv(fds_[1], room, sizeof(room), MSG_DONTWAIT | MSG_TRUNC);
    return n < 0 ? 0 : static_cast<size_t>(n);
  }

  std::array<int, 2> fds_{};
};

// What the program returns, folded into twelve bits, plus 1.
Code Folded(const Code& program) {
  Code code;
  AppendFolded(program, code);
  code.push_back(BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1));
  code.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
  return code;
}

TEST_F(PacketHost, ProgramsReturnTheSame) {
  int kept = 0, lost = 0;
  for (uint64_t seed = 1; seed <= 3000; seed++) {
    SCOPED_TRACE(seed);
    RandomProgram random(seed, kWords, RandomProgram::Loads::kBytes);
    const Code code = Folded(random.Make(4 + random() % 40));
    Result<Program> program = Program::CreateForPackets(code);
    ASSERT_EQ(Attach(code), program ? 0 : program.error().value());
    if (!program) continue;
    for (int i = 0; i < 4; i++) {
      std::vector<std::byte> bytes(kSize);
      // Most of it is looked at by no program.
      for (size_t at = 0; at < kWords * 4 + 64; at++) bytes[at] = static_cast<std::byte>(random());
      const size_t expected = std::min<size_t>(program->Run(PacketOfBytes(bytes)), bytes.size());
      ASSERT_EQ(Pass(bytes), expected);
      (expected > 0 ? kept : lost)++;
    }
  }
  EXPECT_GT(kept, 1000);
  EXPECT_GT(lost, 20);
}

TEST_F(PacketHost, ShortPacketsToo) {
  for (uint64_t seed = 1; seed <= 2000; seed++) {
    SCOPED_TRACE(seed);
    RandomProgram random(seed, kWords, RandomProgram::Loads::kBytes);
    const Code code = random.Make(2 + random() % 12);
    Result<Program> program = Program::CreateForPackets(code);
    ASSERT_EQ(Attach(code), program ? 0 : program.error().value());
    if (!program) continue;
    std::vector<std::byte> bytes(1 + random() % (kWords * 4));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    ASSERT_EQ(Pass(bytes), std::min<size_t>(program->Run(PacketOfBytes(bytes)), bytes.size()));
  }
}

TEST_F(PacketHost, TheSameProgramsAreRefused) {
  int good = 0, bad = 0;
  for (uint64_t seed = 1; seed <= 10'000; seed++) {
    SCOPED_TRACE(seed);
    RandomProgram random(seed, kWords, RandomProgram::Loads::kBytes);
    Code code = random.Make(1 + random() % 30);
    if (random() % 4 != 0) random.Mutate(&code);
    Result<Program> program = Program::CreateForPackets(code);
    ASSERT_EQ(Attach(code), program ? 0 : program.error().value());
    (program ? good : bad)++;
  }
  EXPECT_GT(good, 1000);
  EXPECT_GT(bad, 1000);
}

// Each code that there is, alone.
TEST_F(PacketHost, TheSameInstructionsAreKnown) {
  for (uint32_t code = 0; code < 0x100; code++) {
    for (uint32_t k : {0u, 4u, 31u, 64u, static_cast<uint32_t>(SKF_AD_OFF), static_cast<uint32_t>(SKF_AD_OFF + 1),
                       static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_VLAN_TPID),
                       static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_MAX), static_cast<uint32_t>(SKF_NET_OFF)}) {
      SCOPED_TRACE(::testing::Message() << code << " " << k);
      const Code program = {BPF_STMT(BPF_ST, 4), BPF_STMT(static_cast<uint16_t>(code), k),
                            BPF_STMT(BPF_RET | BPF_K, 0)};
      Result<Program> ours = Program::CreateForPackets(program);
      EXPECT_EQ(Attach(program), ours ? 0 : ours.error().value());
    }
  }
}

}  // namespace
}  // namespace redoubt::bpf

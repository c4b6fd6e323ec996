// Programs of strangers: random ones, and saved ones (corpus.txt) that are mutated. Whatever is accepted must end, stay
// within its record, and agree with what was foretold from a prefix.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include "pkg/bpf/bpf.h"
#include "pkg/bpf/packet_of_bytes.h"
#include "pkg/bpf/random_program.h"
#include "test/fuzz/rounds.h"

namespace redoubt::bpf {
namespace {

constexpr size_t kWords = 16;     // of struct seccomp_data
constexpr uint64_t kMany = 1000;  // rounds, of which something can be expected

// A line a program, its instructions in hexadecimal with a space between; "#" comments.
std::vector<Code> Corpus() {
  std::ifstream in("pkg/bpf/corpus.txt");
  std::vector<Code> corpus;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) continue;
    Code code;
    for (const char* p = line.c_str(); *p != '\0';) {
      char* end = nullptr;
      const uint64_t bits = std::strtoull(p, &end, 16);
      if (end == p) break;
      sock_filter f;
      std::memcpy(&f, &bits, sizeof(f));
      code.push_back(f);
      p = end;
    }
    corpus.push_back(std::move(code));
  }
  return corpus;
}

// Returns whether the program was accepted.
bool Check(const Code& code, RandomProgram& random) {
  // Of exact sizes, so that a sanitizer sees a word too many.
  const std::unique_ptr<sock_filter[]> exact(new sock_filter[code.size()]);
  std::copy(code.begin(), code.end(), exact.get());
  Result<Program> program = Program::Create({exact.get(), code.size()}, kWords);
  if (!program) {
    EXPECT_EQ(program.error(), Errno(EINVAL));
    return false;
  }
  EXPECT_EQ(program->size(), code.size());
  const std::unique_ptr<uint32_t[]> record(new uint32_t[kWords]);
  for (size_t i = 0; i < kWords; i++) record[i] = random.Number();
  const size_t known = random() % (kWords + 1);
  const std::unique_ptr<uint32_t[]> prefix(new uint32_t[known]);
  std::copy_n(record.get(), known, prefix.get());
  const std::optional<uint32_t> foretold = program->RunPrefix({prefix.get(), known});
  EXPECT_TRUE(foretold || known < kWords);
  for (int i = 0; i < 4; i++) {
    const uint32_t result = program->Run(record.get());
    EXPECT_EQ(result, foretold.value_or(result));
    // A word that it does not load makes no difference.
    const size_t word = random() % kWords;
    record[word] ^= static_cast<uint32_t>(random()) | 1;
    if (!program->Loads(word)) {
      EXPECT_EQ(program->Run(record.get()), result);
    }
    record[word] = word < known ? prefix[word] : random.Number();
  }
  return true;
}

TEST(BpfFuzz, TheCorpusIsRead) { EXPECT_GE(Corpus().size(), 5u); }

TEST(BpfFuzz, WhatIsAcceptedKeepsItsPromises) {
  const std::vector<Code> corpus = Corpus();
  uint64_t accepted = 0, refused = 0;
  fuzz::Rounds(20'000, [&](uint64_t seed) {
    RandomProgram random(seed, kWords);
    Code code = random() % 3 == 0 ? corpus[random() % corpus.size()] : random.Make(1 + random() % 60);
    if (random() % 3 != 0) random.Mutate(&code);
    (Check(code, random) ? accepted : refused)++;
  });
  // Neither kind is a rarity, or the test would say little.
  if (accepted + refused < kMany) return;
  EXPECT_GT(accepted, (accepted + refused) / 10);
  EXPECT_GT(refused, (accepted + refused) / 10);
}

// Of packets nothing is foretold: they end, and look at no byte that is not theirs.
TEST(BpfFuzz, PacketsAreSafeFromWhatIsAccepted) {
  uint64_t accepted = 0, refused = 0, kept = 0;
  fuzz::Rounds(20'000, [&](uint64_t seed) {
    RandomProgram random(seed, kWords, RandomProgram::Loads::kBytes);
    Code code = random.Make(1 + random() % 60);
    if (random() % 2 != 0) random.Mutate(&code);
    Result<Program> program = Program::CreateForPackets(code);
    if (!program) {
      EXPECT_EQ(program.error(), Errno(EINVAL));
      refused++;
      return;
    }
    accepted++;
    const size_t size = random() % (kWords * 4 + 1);
    const std::unique_ptr<std::byte[]> bytes(new std::byte[size]);
    for (size_t i = 0; i < size; i++) bytes[i] = static_cast<std::byte>(random());
    PacketOfBytes packet({bytes.get(), size});
    packet.protocol_ = random() % 2 == 0 ? 0x0800 : 0x86dd;
    packet.network_offset_ = static_cast<int32_t>(random() % 40) - 8;
    if (random() % 2 == 0) packet.interface_ = {{.index = 3, .hardware_type = 1}};
    kept += program->Run(packet) != 0;
  });
  if (accepted + refused < kMany) return;
  EXPECT_GT(accepted, (accepted + refused) / 10);
  EXPECT_GT(refused, (accepted + refused) / 10);
  EXPECT_GT(kept, accepted / 10);
}

}  // namespace
}  // namespace redoubt::bpf

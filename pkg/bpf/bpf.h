// Classic BPF (the kernel's Documentation/networking/filter.rst): checked and translated once, run many times. Over a
// record of 32-bit words in the machine's byte order, as seccomp(2) runs it over struct seccomp_data, or over packets,
// as SO_ATTACH_FILTER does (socket(7)).
#ifndef REDOUBT_PKG_BPF_BPF_H_
#define REDOUBT_PKG_BPF_BPF_H_

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"

namespace redoubt::bpf {

inline constexpr size_t kMaxInstructions = 4096;  // BPF_MAXINSNS

class Packet;

// Immutable, so any thread may run it.
class Program final {
 public:
  // For records of so many words. EINVAL: no instruction or too many of them; one that is not known; a load that is not
  // of one of the words; a jump that leaves the program; a division by a constant zero or a shift by a constant of 32
  // or more; a memory word out of range, or that is read where it may not have been written; an end that is no return.
  static Result<Program> Create(std::span<const sock_filter> code, size_t words);
  // For packets, with other instructions: loads of bytes and of what is known beside them (SKF_AD_*), and remainders.
  static Result<Program> CreateForPackets(std::span<const sock_filter> code);

  // Returns what the program returns. `record` has the words that it was created for. Jumps lead forward only, so that
  // it takes size() steps at most. A division by zero ends it with 0.
  uint32_t Run(const uint32_t* record) const;
  // What Run returns for every record that starts with these words; none if that cannot be told from them.
  std::optional<uint32_t> RunPrefix(std::span<const uint32_t> known) const;
  // A load from where there is nothing ends it with 0.
  uint32_t Run(const Packet& packet) const;

  // In instructions, as given.
  size_t size() const { return code_.size(); }
  // Whether there is a load of that word.
  bool Loads(size_t word) const { return ((loads_ >> word) & 1) != 0; }

 private:
  // An instruction whose operands were checked.
  enum class Op : uint8_t;
  struct Instruction {
    Op op;
    uint8_t on_true, on_false;  // how many instructions a conditional jump skips
    uint32_t k;
  };

  enum class Kind : uint8_t { kRecords, kPackets };
  static Result<Program> Create(std::span<const sock_filter> code, size_t words, Kind kind);
  // False: it loads what the input does not have.
  template <typename Input>
  bool Execute(const Input& input, uint32_t* result) const;

  std::vector<Instruction> code_;
  uint64_t loads_ = 0;  // a bit a word
};

// Of a record: loads_ has a bit for each.
inline constexpr size_t kMaxWords = 64;

}  // namespace redoubt::bpf

#endif  // REDOUBT_PKG_BPF_BPF_H_

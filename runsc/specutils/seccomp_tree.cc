#include "runsc/specutils/seccomp_tree.h"

#include <cstddef>

namespace redoubt::specutils {
namespace {

// From `first` up to the next one's.
struct Range {
  uint32_t first;
  Decision decision;
};

std::vector<Range> RangesOf(const std::map<uint32_t, Decision>& decisions, Decision otherwise, uint32_t end) {
  std::vector<Range> ranges;
  auto add = [&](uint32_t first, const Decision& decision) {
    if (ranges.empty() || ranges.back().decision != decision) ranges.push_back({first, decision});
  };
  uint32_t next = 0;
  for (const auto& [number, decision] : decisions) {
    if (number >= end) break;
    if (number > next) add(next, otherwise);
    add(number, decision);
    next = number + 1;
  }
  if (next < end) add(next, otherwise);
  add(end, std::nullopt);
  return ranges;
}

// The tree of ranges [low, high). Leaves without a decision are jumps whose places go to `open`.
void Append(const std::vector<Range>& ranges, size_t low, size_t high, std::vector<sock_filter>* code,
            std::vector<size_t>* open) {
  if (high - low == 1) {
    if (ranges[low].decision) {
      code->push_back(BPF_STMT(BPF_RET | BPF_K, *ranges[low].decision));
    } else {
      open->push_back(code->size());
      code->push_back(BPF_STMT(BPF_JMP | BPF_JA, 0));
    }
    return;
  }
  const size_t middle = low + (high - low) / 2;
  // A conditional jump reaches 255 instructions only; another one takes it from there.
  code->push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[middle].first, 0, 1));
  const size_t jump = code->size();
  code->push_back(BPF_STMT(BPF_JMP | BPF_JA, 0));
  Append(ranges, low, middle, code, open);
  (*code)[jump].k = static_cast<uint32_t>(code->size() - jump - 1);
  Append(ranges, middle, high, code, open);
}

}  // namespace

void AppendDecisions(const std::map<uint32_t, Decision>& decisions, Decision otherwise, uint32_t end,
                     std::vector<sock_filter>* code) {
  const std::vector<Range> ranges = RangesOf(decisions, otherwise, end);
  std::vector<size_t> open;
  Append(ranges, 0, ranges.size(), code, &open);
  for (size_t at : open) (*code)[at].k = static_cast<uint32_t>(code->size() - at - 1);
}

}  // namespace redoubt::specutils

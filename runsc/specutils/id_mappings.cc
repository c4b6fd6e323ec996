#include "runsc/specutils/id_mappings.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <sstream>
#include <utility>

namespace redoubt::specutils {
namespace {

// Whether two ranges of one side have an ID in common.
std::optional<uint32_t> Doubled(std::vector<std::pair<uint32_t, uint32_t>> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); i++) {
    if (ranges[i].first - ranges[i - 1].first < ranges[i - 1].second) return ranges[i].first;
  }
  return std::nullopt;
}

}  // namespace

std::string WhyInvalid(const std::vector<IdMapping>& mappings) {
  // -1 is no ID.
  constexpr uint64_t kIds = UINT32_MAX;
  if (mappings.empty()) return "must not be empty";
  if (mappings.size() > kMaxIdMappings) return fmt::format("more than {} mappings", kMaxIdMappings);
  std::vector<std::pair<uint32_t, uint32_t>> inside, outside;
  for (const IdMapping& m : mappings) {
    if (m.size == 0) return "a size is 0";
    if (uint64_t{m.inside} + m.size > kIds) return fmt::format("containerID {}: its IDs go past 4294967294", m.inside);
    if (uint64_t{m.outside} + m.size > kIds) return fmt::format("hostID {}: its IDs go past 4294967294", m.outside);
    inside.emplace_back(m.inside, m.size);
    outside.emplace_back(m.outside, m.size);
  }
  if (auto id = Doubled(std::move(inside))) return fmt::format("containerID {} is mapped twice", *id);
  if (auto id = Doubled(std::move(outside))) return fmt::format("hostID {} is mapped twice", *id);
  return "";
}

std::string MapText(const std::vector<IdMapping>& mappings) {
  std::string text;
  for (const IdMapping& m : mappings) {
    fmt::format_to(std::back_inserter(text), "{} {} {}\n", m.inside, m.outside, m.size);
  }
  return text;
}

std::optional<std::vector<IdMapping>> ParseMapText(const std::string& text) {
  std::vector<IdMapping> mappings;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    uint64_t inside = 0, outside = 0, size = 0;
    std::string rest;
    if (!(words >> inside >> outside >> size) || words >> rest || mappings.size() == kMaxIdMappings) return {};
    if (inside > UINT32_MAX || outside > UINT32_MAX || size > UINT32_MAX) return {};
    mappings.push_back({static_cast<uint32_t>(inside), static_cast<uint32_t>(outside), static_cast<uint32_t>(size)});
  }
  return mappings;
}

bool HasInside(const std::vector<IdMapping>& mappings, uint32_t id) {
  uint32_t ignored = 0;
  return ToOutside(mappings, id, &ignored);
}

bool HasOutside(const std::vector<IdMapping>& mappings, uint32_t id) {
  return std::any_of(mappings.begin(), mappings.end(),
                     [id](const IdMapping& m) { return id >= m.outside && id - m.outside < m.size; });
}

bool ToOutside(const std::vector<IdMapping>& mappings, uint32_t id, uint32_t* outside) {
  for (const IdMapping& m : mappings) {
    if (id < m.inside || id - m.inside >= m.size) continue;
    *outside = m.outside + (id - m.inside);
    return true;
  }
  *outside = 0;
  return false;
}

uint32_t ServingId(const std::vector<IdMapping>& mappings) {
  return mappings.empty() || HasInside(mappings, 0) ? 0 : mappings[0].inside;
}

}  // namespace redoubt::specutils

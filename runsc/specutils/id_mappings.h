// Which IDs of a container are which on the host: config-linux.md, "User namespace mappings"; user_namespaces(7).
#ifndef REDOUBT_RUNSC_SPECUTILS_ID_MAPPINGS_H_
#define REDOUBT_RUNSC_SPECUTILS_ID_MAPPINGS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace redoubt::specutils {

inline constexpr size_t kMaxIdMappings = 340;  // Linux takes no more lines

// One line of /proc/PID/uid_map. For a mount, whose `inside` is its file system: what is stored there is `outside` to
// who looks.
struct IdMapping {
  uint32_t inside = 0;
  uint32_t outside = 0;
  uint32_t size = 0;
  bool operator==(const IdMapping&) const = default;
};

struct IdMappings {
  std::vector<IdMapping> uids, gids;
  bool empty() const { return uids.empty() && gids.empty(); }
  bool operator==(const IdMappings&) const = default;
};

// Why Linux would refuse them, for people; empty: it would not.
std::string WhyInvalid(const std::vector<IdMapping>& mappings);
// As they are written to and read from /proc/PID/uid_map. Nothing: the text is no such thing.
std::string MapText(const std::vector<IdMapping>& mappings);
std::optional<std::vector<IdMapping>> ParseMapText(const std::string& text);

bool HasInside(const std::vector<IdMapping>& mappings, uint32_t id);
// Of what is inside; 0 and false: it has none.
bool ToOutside(const std::vector<IdMapping>& mappings, uint32_t id, uint32_t* outside);
bool HasOutside(const std::vector<IdMapping>& mappings, uint32_t id);
// As whom the container's files are served: root if it is there, else the first there is. Of valid mappings.
uint32_t ServingId(const std::vector<IdMapping>& mappings);

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_ID_MAPPINGS_H_

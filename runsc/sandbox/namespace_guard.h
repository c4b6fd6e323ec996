// Which network namespace may be taken over. Taking one over removes addresses from its interfaces: done to the
// machine's own, it cuts the machine off.
#ifndef REDOUBT_RUNSC_SANDBOX_NAMESPACE_GUARD_H_
#define REDOUBT_RUNSC_SANDBOX_NAMESPACE_GUARD_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "runsc/specutils/spec.h"

namespace redoubt::sandbox {

// namespaces(7): two names are of one namespace if device and inode are the same.
struct NamespaceId {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const NamespaceId&, const NamespaceId&) = default;
};
// Of a file such as /proc/1/ns/net or a bind mount of it; nullopt if it is none or cannot be looked at.
std::optional<NamespaceId> NamespaceOfFile(const std::string& path);
std::optional<NamespaceId> NamespaceOfFd(int fd);

// How the namespace was named.
enum class NamespaceChoice : uint8_t {
  kPath,     // in config.json; if it leads to the caller's own namespace, somebody is mistaken
  kCurrent,  // --network=sandbox in a namespace made for the purpose (`ip netns exec`)
};

// The error line if `target` must not be taken over: it is the machine's (that of process 1), or nobody can tell.
specutils::Expected<void> CheckTakeable(NamespaceChoice choice, std::optional<NamespaceId> target,
                                        std::optional<NamespaceId> of_process_1, std::optional<NamespaceId> caller);

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_NAMESPACE_GUARD_H_

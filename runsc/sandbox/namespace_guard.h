// Which network namespace may be taken over. Taking one over removes addresses from its interfaces: done to the
// machine's own, it cuts the machine off.
#ifndef REDOUBT_RUNSC_SANDBOX_NAMESPACE_GUARD_H_
#define REDOUBT_RUNSC_SANDBOX_NAMESPACE_GUARD_H_

#include <sys/types.h>

#include <cstdint>
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

// The network namespace of process 1, as far as may be seen: if that cannot be read (ptrace(2), "Ptrace access mode
// checking"), of the outermost ancestor of this process that can.
std::optional<NamespaceId> NamespaceOfMachine();
// Is the calling thread in the namespace that the kernel started with? Only there net.core.netdev_max_backlog is to be
// seen (Documentation/admin-guide/sysctl/net.rst); net.core.somaxconn is everywhere. nullopt: /proc/sys cannot be read.
std::optional<bool> InInitialNamespace();

// How the namespace was named.
enum class NamespaceChoice : uint8_t {
  kPath,     // in config.json; if it leads to the caller's own namespace, somebody is mistaken
  kCurrent,  // --network=sandbox in a namespace made for the purpose (`ip netns exec`)
};

// What is known of a namespace; nothing for what could not be found out.
struct NamespaceEvidence {
  std::optional<NamespaceId> target;
  std::optional<bool> target_is_initial;
  std::optional<NamespaceId> machine;
  std::optional<NamespaceId> caller;
};
// The error line if it must not be taken over: it is the machine's, or nobody can tell.
specutils::Expected<void> CheckTakeable(NamespaceChoice choice, const NamespaceEvidence& evidence);

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_NAMESPACE_GUARD_H_

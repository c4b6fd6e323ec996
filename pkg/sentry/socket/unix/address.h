// Private to unix: sockaddr_un, and the table of abstract names.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_UNIX_ADDRESS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_UNIX_ADDRESS_H_

#include <map>
#include <string>
#include <utility>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sync/mutex.h"

namespace redoubt::unixsock {

class Endpoint;

// A socket's name, as sun_path holds it: empty for none, "\0..." for an abstract one, otherwise a path without NULs.
using Name = std::string;
inline bool IsAbstract(const Name& name) { return !name.empty() && name[0] == '\0'; }

// EINVAL for another family or a length that is none. `empty` results from an address of the family alone: autobind.
Result<Name> ParseAddress(socket::Address address);
socket::AddressBytes FormatAddress(const Name& name);

// Who has which abstract name. A name goes with its endpoint, which takes itself out.
class AbstractNames final {
 public:
  static AbstractNames& Get();
  // EADDRINUSE.
  Result<> Add(const void* space, const Name& name, Endpoint& endpoint) EXCLUDES(mu_);
  // A fresh name of five hexadecimal digits (unix(7), "Autobind feature").
  Result<Name> AddAny(const void* space, Endpoint& endpoint) EXCLUDES(mu_);
  void Remove(const void* space, const Name& name) EXCLUDES(mu_);
  // ECONNREFUSED.
  Result<RefPtr<Endpoint>> Find(const void* space, const Name& name) EXCLUDES(mu_);

 private:
  using Key = std::pair<const void*, Name>;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::map<Key, Endpoint*> names_ GUARDED_BY(mu_);
  uint32_t next_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::unixsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_UNIX_ADDRESS_H_

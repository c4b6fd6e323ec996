#include "pkg/sentry/socket/unix/address.h"

#include <sys/un.h>

#include <cstdio>
#include <cstring>

#include "pkg/sentry/socket/unix/endpoint.h"

namespace redoubt::unixsock {

Result<Name> ParseAddress(socket::Address address) {
  sa_family_t family;
  if (address.size() < sizeof(family) || address.size() > sizeof(sockaddr_un)) return Err(EINVAL);
  std::memcpy(&family, address.data(), sizeof(family));
  if (family != AF_UNIX) return Err(EINVAL);
  Name name(reinterpret_cast<const char*>(address.data()) + sizeof(family), address.size() - sizeof(family));
  // A path ends at its NUL, or at the end of the address; every byte of an abstract name counts.
  if (!IsAbstract(name)) name.resize(strnlen(name.data(), name.size()));
  return name;
}

socket::AddressBytes FormatAddress(const Name& name) {
  const sa_family_t family = AF_UNIX;
  socket::AddressBytes bytes(sizeof(family) + name.size() + (name.empty() || IsAbstract(name) ? 0 : 1));
  std::memcpy(bytes.data(), &family, sizeof(family));
  std::memcpy(bytes.data() + sizeof(family), name.data(), name.size());
  return bytes;
}

AbstractNames& AbstractNames::Get() {
  static AbstractNames* const names = new AbstractNames();
  return *names;
}

Result<> AbstractNames::Add(const void* space, const Name& name, Endpoint& endpoint) {
  sync::MutexLock lock(mu_);
  if (!names_.try_emplace(Key(space, name), &endpoint).second) return Err(EADDRINUSE);
  return {};
}

Result<Name> AbstractNames::AddAny(const void* space, Endpoint& endpoint) {
  sync::MutexLock lock(mu_);
  constexpr uint32_t kNames = 0x100000;
  for (uint32_t i = 0; i < kNames; ++i) {
    char digits[8];
    std::snprintf(digits, sizeof(digits), "%05x", next_++ % kNames);
    Name name = Name(1, '\0') + digits;
    if (names_.try_emplace(Key(space, name), &endpoint).second) return name;
  }
  return Err(ENOSPC);
}

void AbstractNames::Remove(const void* space, const Name& name) {
  sync::MutexLock lock(mu_);
  names_.erase(Key(space, name));
}

Result<RefPtr<Endpoint>> AbstractNames::Find(const void* space, const Name& name) {
  sync::MutexLock lock(mu_);
  auto it = names_.find(Key(space, name));
  if (it == names_.end() || !it->second->TryIncRef()) return Err(ECONNREFUSED);
  return RefPtr<Endpoint>::Adopt(it->second);
}

}  // namespace redoubt::unixsock

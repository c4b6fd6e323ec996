#include "pkg/netstack/inet/inet.h"

#include "pkg/netstack/link/loopback.h"

namespace redoubt::netstack {

Result<RefPtr<Interface>> AddLoopback(Stack& stack) {
  RefPtr<Interface> lo =
      TRY(stack.AddInterface({.name = "lo", .link = std::make_unique<Loopback>(stack.clock(), stack.timers())}));
  TRY(lo->AddAddress({.prefix = {Address::Loopback(Family::kIpv4), 8}}));
  TRY(lo->AddAddress({.prefix = {Address::Loopback(Family::kIpv6), 128}}));
  lo->SetUp(true);
  return lo;
}

}  // namespace redoubt::netstack

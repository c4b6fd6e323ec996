#include "pkg/netstack/stack/route.h"

#include "pkg/netstack/header/ipv4.h"
#include "pkg/netstack/header/ipv6.h"
#include "pkg/netstack/stack/stack.h"

namespace redoubt::netstack {

uint32_t Route::mtu() const {
  if (stack_ == nullptr) return 0;
  PathMtuCache& cache = stack_->path_mtu();
  uint32_t generation = cache.generation();
  if (generation != path_mtu_generation_ || (path_mtu_ != 0 && stack_->Now() >= path_mtu_expires_)) {
    path_mtu_generation_ = generation;
    std::optional<PathMtuCache::Entry> known = cache.Find(remote_, stack_->Now());
    path_mtu_ = known ? known->mtu : 0;
    path_mtu_expires_ = known ? known->expires : kNever;
  }
  return path_mtu_ != 0 && path_mtu_ < interface_mtu_ ? path_mtu_ : interface_mtu_;
}

size_t Route::headroom() const {
  size_t network = remote_.is_ipv4() ? header::Ipv4::kMinSize : header::Ipv6::kSize;
  return network + (interface_ != nullptr ? interface_->link().header_size() : 0);
}

bool Route::IsStale() const { return stack_ != nullptr && generation_ != stack_->routing_generation(); }

Result<> Route::Write(Buffer transport, const WriteOptions& options) const {
  if (stack_ == nullptr) return Err(ENETUNREACH);
  if (!interface_->up()) return Err(ENETDOWN);
  PacketPtr packet = NewPacket(std::move(transport));
  packet->offload = options.offload;
  packet->stamp = options.stamp;
  return stack_->network(family())->Output(*this, std::move(packet), options);
}

}  // namespace redoubt::netstack

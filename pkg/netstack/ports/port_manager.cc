#include "pkg/netstack/ports/port_manager.h"

#include <netinet/in.h>

#include <utility>

namespace redoubt::netstack {

namespace {

bool CoversAll(const PortRequest& r, Family family) {
  if (!r.address.IsUnspecified()) return false;
  return r.address.family() == family || (r.address.is_ipv6() && !r.v6_only);
}

bool Overlap(const PortRequest& a, const PortRequest& b) {
  if (a.interface_index != 0 && b.interface_index != 0 && a.interface_index != b.interface_index) return false;
  Address aa = a.address.FromV4Mapped();
  Address ba = b.address.FromV4Mapped();
  if (aa == ba) return true;
  if (a.address.IsUnspecified() && b.address.IsUnspecified()) {
    return CoversAll(a, Family::kIpv4) == CoversAll(b, Family::kIpv4) ||
           CoversAll(a, Family::kIpv6) == CoversAll(b, Family::kIpv6);
  }
  return CoversAll(a, ba.family()) || CoversAll(b, aa.family());
}

bool MayShare(const PortRequest& a, const PortRequest& b, bool listening) {
  if (a.reuse_port && b.reuse_port && a.owner == b.owner) return true;
  return a.reuse_address && b.reuse_address && !listening;
}

}  // namespace

PortManager::Claim& PortManager::Claim::operator=(Claim&& o) noexcept {
  if (this != &o) {
    Release();
    manager_ = std::exchange(o.manager_, nullptr);
    id_ = o.id_;
    protocol_ = o.protocol_;
    port_ = o.port_;
  }
  return *this;
}

void PortManager::Claim::Release() {
  if (manager_ != nullptr) std::exchange(manager_, nullptr)->Release(*this);
}

Result<PortManager::Claim> PortManager::Reserve(const PortRequest& request) {
  uint32_t start = request.port == 0 ? random_.Below(kLastEphemeral - kFirstEphemeral + 1u) : 0;
  sync::MutexLock lock(mu_);
  uint16_t port = request.port;
  if (port == 0) {
    // A port nobody has, before one that sharing would allow: sharing is for those who name the port.
    PortRequest alone = request;
    alone.reuse_address = alone.reuse_port = false;
    constexpr uint32_t kCount = kLastEphemeral - kFirstEphemeral + 1;
    for (uint32_t i = 0; i < kCount && port == 0; i++) {
      uint16_t candidate = static_cast<uint16_t>(kFirstEphemeral + (start + i) % kCount);
      if (!ConflictsLocked(alone, candidate)) port = candidate;
    }
    if (port == 0) return Err(EADDRINUSE);
  } else if (ConflictsLocked(request, port)) {
    return Err(EADDRINUSE);
  }
  Claim claim;
  claim.manager_ = this;
  claim.id_ = next_id_++;
  claim.protocol_ = request.protocol;
  claim.port_ = port;
  holders_[Key(request.protocol, port)].push_back({.id = claim.id_, .request = request});
  return claim;
}

Result<> PortManager::SetListening(const Claim& claim, bool listening) {
  sync::MutexLock lock(mu_);
  auto it = holders_.find(Key(claim.protocol_, claim.port_));
  if (it == holders_.end()) return Err(EINVAL);
  Holder* own = nullptr;
  for (Holder& h : it->second) {
    if (h.id == claim.id_) own = &h;
  }
  if (own == nullptr) return Err(EINVAL);
  if (listening) {
    for (const Holder& h : it->second) {
      if (&h != own && h.listening && Overlap(h.request, own->request) && !MayShare(h.request, own->request, true)) {
        return Err(EADDRINUSE);
      }
    }
  }
  own->listening = listening;
  return {};
}

bool PortManager::IsFree(const PortRequest& request) const {
  PortRequest alone = request;
  alone.reuse_address = alone.reuse_port = false;
  sync::MutexLock lock(mu_);
  return !ConflictsLocked(alone, request.port);
}

bool PortManager::ConflictsLocked(const PortRequest& request, uint16_t port) const {
  auto it = holders_.find(Key(request.protocol, port));
  if (it == holders_.end()) return false;
  for (const Holder& h : it->second) {
    if (Overlap(h.request, request) && !MayShare(h.request, request, h.listening)) return true;
  }
  return false;
}

void PortManager::Release(const Claim& claim) {
  sync::MutexLock lock(mu_);
  auto it = holders_.find(Key(claim.protocol_, claim.port_));
  if (it == holders_.end()) return;
  std::erase_if(it->second, [&](const Holder& h) { return h.id == claim.id_; });
  if (it->second.empty()) holders_.erase(it);
}

}  // namespace redoubt::netstack

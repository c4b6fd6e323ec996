#include "pkg/platform/kvm/address_space.h"

#include <string.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "pkg/platform/guest_range.h"

namespace redoubt::platform::kvm {
namespace {

// The memory whose users have lost something, in as few pieces as can be.
class LostMemory final : public ring0::pagetables::Listener {
 public:
  void Lost(Addr, uint64_t physical, uint64_t length) override {
    if (!pieces_.empty() && pieces_.back().end == physical) {
      pieces_.back().end += length;
    } else {
      pieces_.push_back({physical, physical + length});
    }
  }

  void Forget(FileMemory& memory) {
    std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) { return a.start < b.start; });
    for (size_t i = 0; i < pieces_.size();) {
      Piece piece = pieces_[i++];
      for (; i < pieces_.size() && pieces_[i].start <= piece.end; i++) piece.end = std::max(piece.end, pieces_[i].end);
      memory.Forget(piece.start, piece.end - piece.start);
    }
  }

 private:
  struct Piece {
    uint64_t start;
    uint64_t end;
  };
  std::vector<Piece> pieces_;
};

}  // namespace

Result<> KvmAddressSpace::MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access,
                                  bool populate) {
  if (access.any() && fd != memory_fd_) return Err(EINVAL);
  const MapOp op{.addr = addr, .length = length, .offset = offset, .access = access, .populate = populate};
  return Batch({&op, 1});
}

Result<> KvmAddressSpace::Unmap(Addr addr, uint64_t length) {
  const MapOp op{.addr = addr, .length = length};
  return Batch({&op, 1});
}

Result<> KvmAddressSpace::Batch(std::span<const MapOp> ops) {
  sync::MutexLock lock(mu_);
  if (!tables_) return Err(ESRCH);
  LostMemory lost;
  Result<> result;
  for (const MapOp& op : ops) {
    result = Apply(op, lost);
    if (!result) break;
  }
  // Also after an error: what was done is done.
  lost.Forget(machine_->file_memory());
  return result;
}

Result<> KvmAddressSpace::Apply(const MapOp& op, ring0::pagetables::Listener& lost) {
  TRY(CheckGuestRange(op.addr, op.length, kMaxUserAddress));
  if (!IsPageAligned(op.offset)) return Err(EINVAL);
  if (!op.access.any()) return tables_->tables.Unmap(op.addr, op.length, lost);
  if (op.addr < kMinUserAddress) return Err(EINVAL);
  const uint64_t physical = TRY(machine_->file_memory().Add(op.offset, op.length));
  if (tables_->tables.tables() >= max_tables_) return Err(ENOMEM);
  return tables_->tables.Map(op.addr, op.length, physical, {.access = op.access}, lost);
}

void KvmAddressSpace::Release() {
  RefPtr<GuestTables> gone;
  sync::MutexLock lock(mu_);
  // Freed without the lock, here or by the vCPU that has them loaded.
  gone = std::move(tables_);
  tables_ = nullptr;
}

bool KvmAddressSpace::Peek(Addr addr, std::span<std::byte> out) {
  sync::MutexLock lock(mu_);
  if (!tables_) return false;
  for (size_t i = 0; i < out.size(); i++) {
    std::optional<ring0::pagetables::Translation> t = tables_->tables.Walk(addr + i);
    if (!t || !t->user) return false;
    // SAFETY: mapped pages are in the memory file, which never shrinks below them.
    out[i] = *machine_->file_memory().At(t->physical);
  }
  return true;
}

}  // namespace redoubt::platform::kvm

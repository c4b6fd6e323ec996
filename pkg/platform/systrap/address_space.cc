#include "pkg/platform/systrap/address_space.h"

#include <sys/mman.h>

#include <algorithm>

#include "pkg/platform/guest_range.h"
#include "pkg/platform/systrap/control.h"
#include "pkg/platform/systrap/template_unsafe.h"

namespace redoubt::platform::systrap {
namespace {

Result<CommandPage::Op> ToCommand(const MapOp& op) {
  TRY(CheckGuestRange(op.addr, op.length, kMaxUserAddress));
  if (!op.access.any())
    return CommandPage::Op{.addr = op.addr, .length = op.length, .protection = 0, .flags = 0, .offset = 0};
  if (!IsPageAligned(op.offset) || op.addr < kMinUserAddress) return Err(EINVAL);
  uint64_t protection = PROT_READ | (op.access.write ? PROT_WRITE : 0) | (op.access.execute ? PROT_EXEC : 0);
  uint64_t flags = MAP_SHARED | MAP_FIXED | (op.populate ? MAP_POPULATE : 0);
  return CommandPage::Op{
      .addr = op.addr, .length = op.length, .protection = protection, .flags = flags, .offset = op.offset};
}

}  // namespace

SystrapAddressSpace::SystrapAddressSpace(RefPtr<StubProcess> process, const Requirements& requirements)
    : process_(std::move(process)),
      memory_fd_(requirements.memory_fd),
      rewriter_(Stub().syscall, requirements.rewrite) {}

void SystrapAddressSpace::Inherit(AddressSpace& parent) {
  rewriter_.Inherit(static_cast<SystrapAddressSpace&>(parent).rewriter_);
}

Result<> SystrapAddressSpace::MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access,
                                      bool populate) {
  if (fd != memory_fd_) return Err(EINVAL);
  MapOp op{.addr = addr, .length = length, .offset = offset, .access = access, .populate = populate};
  return Batch({&op, 1});
}

Result<> SystrapAddressSpace::Unmap(Addr addr, uint64_t length) {
  MapOp op{.addr = addr, .length = length, .offset = 0, .access = {}, .populate = false};
  return Batch({&op, 1});
}

Result<> SystrapAddressSpace::Batch(std::span<const MapOp> ops) {
  CommandPage::Op commands[COMMAND_MAX_OPS];
  while (!ops.empty()) {
    size_t n = std::min<size_t>(ops.size(), COMMAND_MAX_OPS);
    for (size_t i = 0; i < n; i++) commands[i] = TRY(ToCommand(ops[i]));
    TRY(process_->Map({commands, n}));
    ops = ops.subspan(n);
  }
  return {};
}

}  // namespace redoubt::platform::systrap

#include "pkg/sentry/loader/vdso/vdso.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <utility>

#include "pkg/sentry/loader/vdso/vdso_image.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::loader {

// Pages of the memory file that every process may map: "[vvar]" or "[vdso]".
class SharedPages final : public memmap::Mappable, public memmap::MappingIdentity {
 public:
  // Takes over the reference on the pages.
  SharedPages(pgalloc::MemoryFile& memory_file, memmap::FileRange pages, std::string name, AccessType access)
      : memory_file_(memory_file), pages_(pages), name_(std::move(name)), access_(access) {}
  ~SharedPages() override { memory_file_.DecRef(pages_); }

  uint64_t length() const { return pages_.length(); }
  Result<> MapAt(Addr addr, ProgramMemory& memory) {
    TRY(memory.MMap({.addr = addr,
                     .length = length(),
                     .fixed = true,
                     .access = access_,
                     .max_access = access_,
                     .mappable = this,
                     .identity = RefPtr<memmap::MappingIdentity>(this),
                     .name = name_}));
    return {};
  }

  Result<> AddMapping(memmap::MappingSpace&, AddrRange, uint64_t, bool) override { return {}; }
  void RemoveMapping(memmap::MappingSpace&, AddrRange, uint64_t, bool) override {}
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override {
    if (access.write) return Err(EACCES);
    if (offset >= pages_.length()) return Err(EIO);
    memmap::FileRange range{pages_.start + offset, pages_.start + std::min(offset + length, pages_.length())};
    memory_file_.IncRef(range);
    return range;
  }

  std::string MappedName() const override { return name_; }
  uint64_t MappedDevice() const override { return 0; }
  uint64_t MappedInode() const override { return 0; }
  Result<> MappedSync(uint64_t, uint64_t) override { return {}; }

 private:
  pgalloc::MemoryFile& memory_file_;
  const memmap::FileRange pages_;
  const std::string name_;
  const AccessType access_;
};

Result<std::unique_ptr<Vdso>> Vdso::Create(pgalloc::MemoryFile& memory_file) {
  std::span<const std::byte> image = VdsoImage();
  memmap::FileRange vvar = TRY(memory_file.Allocate(kPageSize));
  auto vvar_pages = MakeRef<SharedPages>(memory_file, vvar, "[vvar]", kRead);
  memmap::FileRange code = TRY(memory_file.Allocate(MustPageRoundUp(image.size())));
  auto code_pages = MakeRef<SharedPages>(memory_file, code, "[vdso]", AccessType{.read = true, .execute = true});
  memcpy(memory_file.At(code.start), image.data(), image.size());
  // The page is zero: not usable.
  auto* page = reinterpret_cast<redoubt_vvar*>(memory_file.At(vvar.start));
  return std::unique_ptr<Vdso>(new Vdso(std::move(vvar_pages), std::move(code_pages), page));
}

Vdso::Vdso(RefPtr<SharedPages> vvar_pages, RefPtr<SharedPages> code_pages, redoubt_vvar* vvar)
    : vvar_pages_(std::move(vvar_pages)), code_pages_(std::move(code_pages)), vvar_(vvar) {}

Vdso::~Vdso() {
  timer_.reset();
  Publish({});  // guests that are left ask the kernel
}

void Vdso::StartClock(fiber::Executor& executor) {
  if (!TscIsInvariant()) return;
  timer_ = std::make_unique<fiber::Timer>(executor, [this] { Tick(); });
  Tick();
}

void Vdso::Tick() {
  Publish(clock_.Add(SampleClocks()));
  // Soon a first estimate, then better ones.
  int64_t delay = ticks_ == 0 ? 10'000'000 : ticks_ == 1 ? 100'000'000 : TscClock::kInterval;
  ticks_++;
  timer_->Arm(clock::Monotonic() + delay);
}

void Vdso::Publish(const ClockParameters& p) {
  // A sequence lock with one writer. Guests can only read the page.
  std::atomic_ref<uint32_t> sequence(vvar_->sequence);
  uint32_t s = sequence.load(std::memory_order_relaxed);
  sequence.store(s + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  auto store = [](auto& field, auto value) {
    std::atomic_ref(field).store(static_cast<std::remove_reference_t<decltype(field)>>(value),
                                 std::memory_order_relaxed);
  };
  store(vvar_->usable, p.usable);
  store(vvar_->base_tsc, p.base_tsc);
  store(vvar_->mult, p.mult);
  store(vvar_->monotonic_base, p.monotonic_base);
  store(vvar_->realtime_offset, p.realtime_offset);
  store(vvar_->boottime_offset, p.boottime_offset);
  sequence.store(s + 2, std::memory_order_release);
}

Result<Addr> Vdso::Map(ProgramMemory& memory) {
  uint64_t length = vvar_pages_->length() + code_pages_->length();
  Addr addr = TRY(memory.MMap({.length = length, .no_reserve = true}));
  TRY(memory.MUnmap(addr, length));
  TRY(vvar_pages_->MapAt(addr, memory));
  Addr code = addr + vvar_pages_->length();
  TRY(code_pages_->MapAt(code, memory));
  return code;
}

}  // namespace redoubt::loader

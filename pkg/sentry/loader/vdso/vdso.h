// The vDSO of all guest processes, and the page it reads the time from.
#ifndef REDOUBT_PKG_SENTRY_LOADER_VDSO_VDSO_H_
#define REDOUBT_PKG_SENTRY_LOADER_VDSO_VDSO_H_

#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/loader/program_memory.h"
#include "pkg/sentry/loader/vdso/tsc_clock.h"
#include "pkg/sentry/loader/vdso/vvar.h"
#include "pkg/sentry/pgalloc/memory_file.h"

namespace redoubt::loader {

class SharedPages;

// One per sandbox, owned by whoever builds it; the memory file, which is borrowed, must outlive it and every address
// space that it was mapped into. Map is thread-safe.
class Vdso final {
 public:
  static Result<std::unique_ptr<Vdso>> Create(pgalloc::MemoryFile& memory_file);
  ~Vdso();
  Vdso(const Vdso&) = delete;
  Vdso& operator=(const Vdso&) = delete;

  // Publishes the time from now on, by a timer of `executor` that keeps the clock true, unless the host's counter is of
  // no use. Until then, and for deterministic executors always, the vDSO's functions make system calls.
  void StartClock(fiber::Executor& executor);

  // Maps the time page and the code; the code's address, for AT_SYSINFO_EHDR.
  Result<Addr> Map(ProgramMemory& memory);

 private:
  Vdso(RefPtr<SharedPages> vvar_pages, RefPtr<SharedPages> code_pages, redoubt_vvar* vvar);
  void Tick();
  void Publish(const ClockParameters& parameters);

  const RefPtr<SharedPages> vvar_pages_;
  const RefPtr<SharedPages> code_pages_;
  redoubt_vvar* const vvar_;  // guests read it at any time
  // Used by the timer alone once started.
  TscClock clock_;
  int ticks_ = 0;
  std::unique_ptr<fiber::Timer> timer_;  // last, so that it stops first
};

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_VDSO_VDSO_H_

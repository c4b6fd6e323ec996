// execve(2)'s loading: ELF images, their interpreter, `#!` scripts, the initial stack and auxiliary vector.
#ifndef REDOUBT_PKG_SENTRY_LOADER_LOADER_H_
#define REDOUBT_PKG_SENTRY_LOADER_LOADER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/platform/platform.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::loader {

class Vdso;

struct Args {
  // Opens a program or interpreter by name as the caller would (for exec permission: EACCES for directories,
  // non-regular files, missing x bits, noexec mounts).
  std::function<Result<RefPtr<vfs::FileDescription>>(const std::string& name)> open;
  RefPtr<vfs::FileDescription> file;  // the program, opened already
  std::string filename;               // as execve was given it: AT_EXECFN and a script's argument
  std::vector<std::string> argv, envv;
  const auth::Credentials* creds = nullptr;  // after set-user-ID: AT_UID..AT_EGID
  bool secure = false;                       // AT_SECURE
  std::function<void(std::span<std::byte>)> random;
  bool randomize = true;           // where things lie; not with personality(2)'s ADDR_NO_RANDOMIZE
  uint64_t stack_limit = 8 << 20;  // RLIMIT_STACK
  Vdso* vdso = nullptr;            // mapped if not null (vdso/vdso.h); borrowed
};

struct Image {
  platform::Registers regs{};               // as the program starts
  std::string name;                         // comm: the last component of the executed file
  RefPtr<vfs::FileDescription> executable;  // the ELF file (for a script, its interpreter): /proc/PID/exe
};

// Builds the program in `mm`, a fresh address space. ENOEXEC for what is no program, ELIBBAD for a broken interpreter,
// E2BIG for too large arguments, ENOENT for a missing interpreter, ... On failure `mm` is to be thrown away.
Result<Image> Load(const Args& args, mm::MemoryManager& mm);

// Total bytes of argv and envv strings and pointers that a program may be given (execve(2), "Limits on size of
// arguments").
uint64_t ArgumentLimit(uint64_t stack_limit);

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_LOADER_H_

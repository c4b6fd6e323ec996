// The template: one pristine stub process per platform, from which the others are cloned, so that the Sentry's page
// tables are copied once, while they are small, and no stub ever holds anything of the Sentry's.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_TEMPLATE_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_TEMPLATE_UNSAFE_H_

#include <sys/types.h>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"

namespace redoubt::platform::systrap {

struct TemplateFds {
  int memory = -1;
  int control = -1;
  int wake = -1;
  int ack = -1;     // write end of the template's pipe
  int socket = -1;  // where the descriptors for new processes come from
};

// Forks the template, a child of the calling OS thread with area 0 of the control file. It is ready once a zero byte
// comes out of its pipe; the pipe closes if it fails.
Result<pid_t> SpawnTemplate(const TemplateFds& fds);

// Where code of the stub is in every stub process.
struct StubAddresses {
  Addr syscall;      // what trampolines jump to
  Addr guest_start;  // the range in which a guest thread may be interrupted unseen
  Addr guest_end;
  Addr iret;  // whose fault means registers that cannot be loaded
};
const StubAddresses& Stub();

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_TEMPLATE_UNSAFE_H_

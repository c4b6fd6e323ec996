// What the process tree needs of a controlling terminal.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_TTY_H_
#define REDOUBT_PKG_SENTRY_KERNEL_TTY_H_

#include "pkg/refs/refs.h"

namespace redoubt::kernel {

// A terminal that can be lost. Session::controlling_tty implements it beside RefCounted.
class HangsUp {
 public:
  virtual ~HangsUp() = default;
  // The session leader has exited: SIGHUP to the foreground process group, the terminal is free again. Takes no kernel
  // lock itself; called without any.
  virtual void HangUp() = 0;
};

inline void HangUpControllingTty(RefCounted& tty) {
  if (auto* t = dynamic_cast<HangsUp*>(&tty); t != nullptr) t->HangUp();
}

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_TTY_H_

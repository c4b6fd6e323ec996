#include "pkg/errors/errors.h"

#include <cstring>

namespace redoubt {

std::string_view Errno::name() const {
  switch (value_) {
    case 512:
      return "ERESTARTSYS";
    case 513:
      return "ERESTARTNOINTR";
    case 514:
      return "ERESTARTNOHAND";
    case 516:
      return "ERESTART_RESTARTBLOCK";
    default: {
      const char* n = strerrorname_np(value_);
      return n != nullptr ? n : "E?";
    }
  }
}

}  // namespace redoubt

// One binary, several roles: the CLI re-executes itself as gofer and as boot (the Sentry).
#include <cstring>

#include "runsc/boot/boot.h"
#include "runsc/cmd/cli.h"
#include "runsc/gofer/gofer_main.h"

int main(int argc, char** argv) {
  // The roles' names on the process list say what they are; a user's first argument never comes with them.
  if (argc >= 2 && std::strcmp(argv[0], "runsc-gofer") == 0) return redoubt::gofer::GoferMain(argc - 1, argv + 1);
  if (argc >= 2 && std::strcmp(argv[0], "runsc-sandbox") == 0) return redoubt::boot::BootMain();
  return redoubt::cmd::Main(argc, argv);
}

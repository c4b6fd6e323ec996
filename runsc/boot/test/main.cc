#include <cstring>

#include "runsc/boot/boot.h"
#include "runsc/gofer/gofer_main.h"

int main(int argc, char** argv) {
  if (argc >= 2 && std::strcmp(argv[0], "runsc-gofer") == 0) return redoubt::gofer::GoferMain(argc - 1, argv + 1);
  return redoubt::boot::BootMain();
}

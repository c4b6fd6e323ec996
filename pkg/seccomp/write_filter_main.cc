// Run at build time: reads the names of allowed system calls, one a line ("#" starts a comment), and writes a header
// with a BPF program that allows those and kills the process at any other. Memory can be mapped, never made executable.
//
//   write_filter NAMES-FILE VARIABLE > filter.h
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

int Fail(const std::string& what) {
  std::fprintf(stderr, "write_filter: %s\n", what.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return Fail("usage: write_filter NAMES-FILE VARIABLE");
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (context == nullptr) return Fail("seccomp_init failed");
  std::ifstream names(argv[1]);
  if (!names) return Fail(std::string(argv[1]) + ": " + std::strerror(errno));
  std::string name;
  while (std::getline(names, name)) {
    name = name.substr(0, name.find('#'));
    while (!name.empty() && name.back() == ' ') name.pop_back();
    if (name.empty()) continue;
    int number = seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) return Fail("no system call is called " + name);
    int r = 0;
    if (name == "mmap" || name == "mprotect") {
      r = seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    } else {
      r = seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0);
    }
    if (r != 0) return Fail(name + ": " + std::strerror(-r));
  }
  FILE* out = std::tmpfile();
  if (out == nullptr || seccomp_export_bpf(context, fileno(out)) != 0) return Fail("seccomp_export_bpf failed");
  std::rewind(out);
  lseek(fileno(out), 0, SEEK_SET);
  std::printf(
      "// Written by write_filter at build time.\n#include <linux/filter.h>\n\ninline constexpr sock_filter %s[] = {\n",
      argv[2]);
  sock_filter f;
  while (read(fileno(out), &f, sizeof(f)) == static_cast<ssize_t>(sizeof(f))) {
    std::printf("    {%#x, %u, %u, %#x},\n", f.code, f.jt, f.jf, f.k);
  }
  std::printf("};\n");
  return 0;
}

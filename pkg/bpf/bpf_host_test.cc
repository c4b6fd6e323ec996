// The host's kernel and this library agree: on which programs are good ones, and on what those return.
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "pkg/bpf/bpf.h"
#include "pkg/bpf/random_program.h"

namespace redoubt::bpf {
namespace {

constexpr size_t kWords = sizeof(seccomp_data) / sizeof(uint32_t);
constexpr int kNumber = 777;  // no system call's
constexpr size_t kCalls = 6;

struct Call {
  uint64_t args[6];
};

// What the child has learned. It tells it by memory, since the filter may forbid it anything else.
struct Shared {
  Call calls[kCalls];
  int install_error;  // -1: it did not come so far
  int done;           // calls that came back
  int error[kCalls];
};

class BpfHost : public ::testing::Test {
 protected:
  void SetUp() override {
    void* p = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(p, MAP_FAILED);
    shared_ = static_cast<Shared*>(p);
  }
  void TearDown() override { munmap(shared_, sizeof(Shared)); }

  // Installs it in a child, which then makes the calls. The child's wait(2) status.
  int Try(const Code& code, size_t calls) {
    shared_->install_error = -1;
    shared_->done = 0;
    const pid_t pid = fork();
    if (pid == 0) {
      const rlimit no_core{0, 0};
      setrlimit(RLIMIT_CORE, &no_core);
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      Code copy = code;
      sock_fprog program{static_cast<unsigned short>(copy.size()), copy.data()};
      const long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
      shared_->install_error = r == 0 ? 0 : errno;
      for (size_t i = 0; r == 0 && i < calls; i++) {
        const uint64_t* a = shared_->calls[i].args;
        const long result = syscall(kNumber, a[0], a[1], a[2], a[3], a[4], a[5]);
        shared_->error[i] = result == 0 ? 0 : errno;
        shared_->done++;
      }
      __builtin_trap();
    }
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return status;
  }

  Shared* shared_ = nullptr;
};

// Only kNumber gets to the program, whose result becomes an error number: all 32 bits folded into its twelve.
Code AsErrno(Code program) {
  // The instruction pointer is not known beforehand.
  for (sock_filter& f : program) {
    if (f.code == (BPF_LD | BPF_W | BPF_ABS) && (f.k == 8 || f.k == 12)) f.k += 8;
  }
  Code code = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kNumber, 1, 0),
               BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  AppendFolded(program, code);
  code.push_back(BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO));
  code.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
  return code;
}

TEST_F(BpfHost, ProgramsReturnTheSame) {
  int ran = 0;
  for (uint64_t seed = 1; seed <= 600; seed++) {
    SCOPED_TRACE(seed);
    RandomProgram random(seed, kWords);
    const Code code = AsErrno(random.Make(4 + random() % 40));
    Result<Program> program = Program::Create(code, kWords);
    for (Call& call : shared_->calls) {
      for (uint64_t& a : call.args) a = uint64_t{random.Number()} << 32 | random.Number();
    }
    const int status = Try(code, kCalls);
    ASSERT_EQ(shared_->install_error, program ? 0 : program.error().value());
    if (!program) continue;
    ran++;
    for (size_t i = 0; i < kCalls; i++) {
      seccomp_data data{.nr = kNumber, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = 0, .args = {}};
      std::memcpy(data.args, shared_->calls[i].args, sizeof(data.args));
      uint32_t words[kWords];
      std::memcpy(words, &data, sizeof(words));
      const uint32_t action = program->Run(words);
      if (action == SECCOMP_RET_KILL_THREAD) {
        EXPECT_EQ(shared_->done, static_cast<int>(i));
        EXPECT_EQ(WTERMSIG(status), SIGSYS);
        break;
      }
      ASSERT_GT(shared_->done, static_cast<int>(i)) << status;
      EXPECT_EQ(shared_->error[i], static_cast<int>(action & 0xfff));
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(ran, 100);
}

TEST_F(BpfHost, TheSameProgramsAreRefused) {
  int good = 0, bad = 0;
  for (uint64_t seed = 1; seed <= 1500; seed++) {
    SCOPED_TRACE(seed);
    RandomProgram random(seed, kWords);
    Code code = random.Make(1 + random() % 30);
    if (random() % 4 != 0) random.Mutate(&code);
    (void)Try(code, 0);
    Result<Program> program = Program::Create(code, kWords);
    ASSERT_EQ(shared_->install_error, program ? 0 : program.error().value());
    (program ? good : bad)++;
  }
  EXPECT_GT(good, 100);
  EXPECT_GT(bad, 100);
}

// Each code that there is, alone.
TEST_F(BpfHost, TheSameInstructionsAreKnown) {
  for (uint32_t code = 0; code < 0x100; code++) {
    for (uint32_t k : {4u, 31u, 64u}) {
      SCOPED_TRACE(::testing::Message() << code << " " << k);
      const Code program = {BPF_STMT(BPF_ST, 4), BPF_STMT(static_cast<uint16_t>(code), k),
                            BPF_STMT(BPF_RET | BPF_K, 0)};
      (void)Try(program, 0);
      Result<Program> ours = Program::Create(program, kWords);
      EXPECT_EQ(shared_->install_error, ours ? 0 : ours.error().value());
    }
  }
}

}  // namespace
}  // namespace redoubt::bpf

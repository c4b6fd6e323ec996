#include "runsc/specutils/seccomp.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>

#include "pkg/bpf/bpf.h"
#include "test/fuzz/rounds.h"

namespace redoubt::specutils {
namespace {

constexpr uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;

Seccomp Parse(const std::string& seccomp) {
  Expected<Spec> spec = ParseConfig(R"({"ociVersion": "1.0.2", "process": {"args": ["a"], "cwd": "/"},
      "root": {"path": "r"}, "linux": {"seccomp": )" +
                                        seccomp + "}}",
                                    "config.json", "/b");
  EXPECT_TRUE(spec) << spec.error();
  return spec && spec->seccomp ? *spec->seccomp : Seccomp();
}
SeccompProgram Compile(const std::string& seccomp) {
  Expected<SeccompProgram> program = CompileSeccomp(Parse(seccomp), "config.json");
  EXPECT_TRUE(program) << program.error();
  return program.value_or(SeccompProgram());
}
std::string ErrorOf(const std::string& seccomp) {
  Expected<SeccompProgram> program = CompileSeccomp(Parse(seccomp), "config.json");
  return program ? "none" : program.error();
}
uint32_t Evaluate(const SeccompProgram& program, int number, std::initializer_list<uint64_t> args = {}) {
  Result<bpf::Program> bpf = bpf::Program::Create(program.code, sizeof(seccomp_data) / 4);
  EXPECT_TRUE(bpf);
  seccomp_data data{.nr = number, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = 0, .args = {}};
  std::copy(args.begin(), args.end(), data.args);
  uint32_t words[sizeof(data) / 4];
  std::memcpy(words, &data, sizeof(data));
  return bpf->Run(words);
}

TEST(Seccomp, CallsByNameAndTheDefault) {
  SeccompProgram p =
      Compile(R"({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
      "syscalls": [{"names": ["read", "write", "no_such_call", "setresuid32"], "action": "SCMP_ACT_ALLOW"},
                   {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]})");
  EXPECT_EQ(Evaluate(p, SYS_read), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Evaluate(p, SYS_write), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Evaluate(p, SYS_mkdir), SECCOMP_RET_ERRNO | ENOSPC);
  EXPECT_EQ(Evaluate(p, SYS_open), kEperm);
  EXPECT_FALSE(p.log);
}

TEST(Seccomp, Actions) {
  for (auto [name, value] : {std::pair{"SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD},
                             {"SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD},
                             {"SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS},
                             {"SCMP_ACT_TRAP", SECCOMP_RET_TRAP},
                             {"SCMP_ACT_ERRNO", kEperm},
                             {"SCMP_ACT_TRACE", SECCOMP_RET_TRACE | EPERM},
                             {"SCMP_ACT_LOG", SECCOMP_RET_LOG}}) {
    SeccompProgram p =
        Compile(std::string(R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": ")") +
                name + "\"}]}");
    EXPECT_EQ(Evaluate(p, SYS_mkdir), value) << name;
    EXPECT_EQ(Evaluate(p, SYS_read), SECCOMP_RET_ALLOW) << name;
  }
}

TEST(Seccomp, ConditionsOfDifferentArgumentsMustAllHold) {
  SeccompProgram p = Compile(R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"],
      "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
      {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"}]}]})");
  EXPECT_EQ(Evaluate(p, SYS_socket, {16, 3, 9}), SECCOMP_RET_ERRNO | EINVAL);
  EXPECT_EQ(Evaluate(p, SYS_socket, {16, 3, 8}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Evaluate(p, SYS_socket, {2, 3, 9}), SECCOMP_RET_ALLOW);
}

TEST(Seccomp, ConditionsOfOneArgumentAreAlternatives) {
  SeccompProgram p = Compile(R"({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["personality"],
      "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
      {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]})");
  EXPECT_EQ(Evaluate(p, SYS_personality, {0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Evaluate(p, SYS_personality, {8}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Evaluate(p, SYS_personality, {4}), kEperm);
}

TEST(Seccomp, Operators) {
  struct Case {
    const char* op;
    uint64_t value, value_two, argument;
    bool holds;
  };
  for (const Case& c :
       {Case{"SCMP_CMP_NE", 5, 0, 6, true}, Case{"SCMP_CMP_NE", 5, 0, 5, false}, Case{"SCMP_CMP_LT", 5, 0, 4, true},
        Case{"SCMP_CMP_LT", 5, 0, 5, false}, Case{"SCMP_CMP_LE", 5, 0, 5, true}, Case{"SCMP_CMP_LE", 5, 0, 6, false},
        Case{"SCMP_CMP_GE", uint64_t{1} << 40, 0, uint64_t{1} << 40, true},
        Case{"SCMP_CMP_GE", uint64_t{1} << 40, 0, 5, false}, Case{"SCMP_CMP_GT", 5, 0, 6, true},
        Case{"SCMP_CMP_GT", 5, 0, 5, false}, Case{"SCMP_CMP_MASKED_EQ", 0x7e020000, 0, 0x11, true},
        Case{"SCMP_CMP_MASKED_EQ", 0x7e020000, 0, 0x10020000, false},
        Case{"SCMP_CMP_MASKED_EQ", 0xf0, 0x10, 0x1f, true}}) {
    SeccompProgram p = Compile(std::string(R"({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["clone"],
        "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": )") +
                               std::to_string(c.value) + ", \"valueTwo\": " + std::to_string(c.value_two) +
                               ", \"op\": \"" + c.op + "\"}]}]}");
    EXPECT_EQ(Evaluate(p, SYS_clone, {0, c.argument}), c.holds ? SECCOMP_RET_ALLOW : kEperm)
        << c.op << " " << c.argument;
  }
}

TEST(Seccomp, CallsNewerThanTheProfileDoNotExist) {
  const std::string names = R"("syscalls": [{"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}]})";
  SeccompProgram p = Compile(R"({"defaultAction": "SCMP_ACT_ERRNO", )" + names);
  EXPECT_EQ(Evaluate(p, SYS_openat2), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Evaluate(p, SYS_openat2 - 1), kEperm);
  EXPECT_EQ(Evaluate(p, SYS_openat2 + 1), kEnosys);
  EXPECT_EQ(Evaluate(Compile(R"({"defaultAction": "SCMP_ACT_KILL_PROCESS", )" + names), 1000), kEnosys);
  // Unless all calls are let through.
  EXPECT_EQ(Evaluate(Compile(R"({"defaultAction": "SCMP_ACT_LOG", )" + names), 1000), SECCOMP_RET_LOG);
  EXPECT_EQ(Evaluate(Compile(R"({"defaultAction": "SCMP_ACT_ALLOW"})"), 1000), SECCOMP_RET_ALLOW);
}

// Random profiles: calls by number, by arguments, and both, with actions that contradict each other. The library alone
// says the same of every call.
TEST(Seccomp, IsWhatTheLibraryMakesOfIt) {
  const char* kNames[] = {"read",        "write", "open",    "close", "stat",   "mmap",  "clone", "socket",
                          "personality", "mkdir", "openat2", "futex", "ptrace", "statx", "bpf",   "keyctl"};
  const char* kActions[] = {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP", "SCMP_ACT_KILL_PROCESS",
                            "SCMP_ACT_LOG"};
  const char* kOperators[] = {"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
                              "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"};
  fuzz::Rounds(100, [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    auto pick = [&](const auto& of) { return of[random() % std::size(of)]; };
    Seccomp profile;
    profile.default_action = pick(kActions);
    for (uint64_t n = random() % 12; n > 0; n--) {
      Seccomp::Rule& rule = profile.rules.emplace_back();
      for (uint64_t names = 1 + random() % 6; names > 0; names--) rule.names.push_back(pick(kNames));
      rule.action = random() % 3 != 0 ? "SCMP_ACT_ALLOW" : pick(kActions);
      if (rule.action == "SCMP_ACT_ERRNO") rule.error = random() % 3;
      for (uint64_t args = random() % 3 == 0 ? 1 + random() % 2 : 0; args > 0; args--) {
        rule.conditions.push_back({.index = static_cast<uint32_t>(random() % 3),
                                   .value = random() % 4,
                                   .value_two = random() % 4,
                                   .op = pick(kOperators)});
      }
    }
    Expected<SeccompProgram> fast = CompileSeccomp(profile, "f"), whole = CompileSeccompByLibrary(profile, "f");
    ASSERT_EQ(fast.has_value(), whole.has_value()) << (fast ? whole.error() : fast.error());
    if (!fast) return;
    for (int number = -2; number < 500; number++) {
      for (int i = 0; i < 4; i++) {
        const std::initializer_list<uint64_t> args = {random() % 5, random() % 5, random() % 5};
        ASSERT_EQ(Evaluate(*fast, number, args), Evaluate(*whole, number, args)) << number;
      }
    }
    for (int number : {0x40000000, 0x40000001, 0x400001ff, 0x7fffffff}) {
      ASSERT_EQ(Evaluate(*fast, number), Evaluate(*whole, number)) << number;
    }
  });
}

TEST(Seccomp, ManyNumbersOfAllActions) {
  // Longer than a conditional jump reaches.
  Seccomp profile{.default_action = "SCMP_ACT_KILL_PROCESS"};
  for (uint16_t error = 0; error < 300; error++) {
    const std::unique_ptr<char, decltype(&free)> name(seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, error), &free);
    if (!name) continue;
    profile.rules.push_back({.names = {name.get()}, .action = "SCMP_ACT_ERRNO", .error = error});
  }
  Expected<SeccompProgram> program = CompileSeccomp(profile, "f");
  ASSERT_TRUE(program);
  for (int number : {0, 1, 57, 150, 255, 299}) {
    EXPECT_EQ(Evaluate(*program, number), SECCOMP_RET_ERRNO | static_cast<uint32_t>(number));
  }
}

TEST(Seccomp, TheDefaultHasAnErrnoOfItsOwn) {
  SeccompProgram p = Compile(R"({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
      "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                   {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]})");
  EXPECT_EQ(Evaluate(p, SYS_read), kEnosys);
  EXPECT_EQ(Evaluate(p, SYS_mkdir), kEperm);
  EXPECT_EQ(Evaluate(p, SYS_rmdir), kEnosys);
}

TEST(Seccomp, FlagsAreKnown) {
  EXPECT_TRUE(Compile(R"({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]})").log);
  EXPECT_FALSE(Compile(R"({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]})").log);
}

TEST(Seccomp, ErrorsNameTheField) {
  const std::string at = "config.json: linux.seccomp.";
  const std::string no_listener =
      "a supervisor outside is not supported, as the guest's calls are not the host's; inside there is "
      "seccomp_unotify(2)";
  EXPECT_EQ(ErrorOf(R"({"defaultAction": "ALLOW"})"), at + "defaultAction: unknown action \"ALLOW\"");
  EXPECT_EQ(ErrorOf(R"({"defaultAction": "SCMP_ACT_NOTIFY"})"), at + "defaultAction: " + no_listener);
  EXPECT_EQ(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"})"),
            at + "listenerPath: " + no_listener);
  EXPECT_EQ(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1})"),
            at + "defaultErrnoRet: action SCMP_ACT_ALLOW has none");
  EXPECT_EQ(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]})"),
            at + "architectures[0]: unknown architecture \"SCMP_ARCH_VAX\"");
  EXPECT_EQ(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]})"),
            at + "flags[0]: flag \"SECCOMP_FILTER_FLAG_NEW_LISTENER\" is not supported");
  auto rule = [](const std::string& rest) {
    return R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], )" + rest + "}]}";
  };
  EXPECT_EQ(ErrorOf(rule(R"("action": "SCMP_ACT_X")")), at + "syscalls[0].action: unknown action \"SCMP_ACT_X\"");
  EXPECT_EQ(ErrorOf(rule(R"("action": "SCMP_ACT_KILL", "errnoRet": 3)")),
            at + "syscalls[0].errnoRet: action SCMP_ACT_KILL has none");
  EXPECT_EQ(ErrorOf(rule(R"("action": "SCMP_ACT_KILL", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])")),
            at + "syscalls[0].args[0].index: there is no argument 6");
  EXPECT_EQ(ErrorOf(rule(R"("action": "SCMP_ACT_KILL", "args": [{"index": 1, "value": 0, "op": "EQ"}])")),
            at + "syscalls[0].args[0].op: unknown operator \"EQ\"");
}

}  // namespace
}  // namespace redoubt::specutils

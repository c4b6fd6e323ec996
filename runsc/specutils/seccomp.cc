#include "runsc/specutils/seccomp.h"

#include <fmt/format.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "runsc/specutils/seccomp_tree.h"

namespace redoubt::specutils {
namespace {

constexpr char kNoListener[] =
    "a supervisor outside is not supported, as the guest's calls are not the host's; inside there is "
    "seccomp_unotify(2)";

struct Action {
  std::string_view name;
  uint32_t value;
  bool takes_error;
  bool lets_through;  // the call is, or may be, made
};
constexpr Action kActions[] = {
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD, false, false},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS, false, false},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD, false, false},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP, false, false},
    {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0), true, false},
    {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0), true, true},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG, false, true},
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW, false, true},
};

struct Operator {
  std::string_view name;
  scmp_compare value;
};
constexpr Operator kOperators[] = {
    {"SCMP_CMP_NE", SCMP_CMP_NE},
    {"SCMP_CMP_LT", SCMP_CMP_LT},
    {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_EQ", SCMP_CMP_EQ},
    {"SCMP_CMP_GE", SCMP_CMP_GE},
    {"SCMP_CMP_GT", SCMP_CMP_GT},
    {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
};

struct Named {
  std::string_view name;
};
// What engines name beside the machine's own. The guest makes calls of x86-64 only.
constexpr Named kArchitectures[] = {
    {"SCMP_ARCH_X86"},     {"SCMP_ARCH_X86_64"},   {"SCMP_ARCH_X32"},         {"SCMP_ARCH_ARM"},
    {"SCMP_ARCH_AARCH64"}, {"SCMP_ARCH_MIPS"},     {"SCMP_ARCH_MIPS64"},      {"SCMP_ARCH_MIPS64N32"},
    {"SCMP_ARCH_MIPSEL"},  {"SCMP_ARCH_MIPSEL64"}, {"SCMP_ARCH_MIPSEL64N32"}, {"SCMP_ARCH_PPC"},
    {"SCMP_ARCH_PPC64"},   {"SCMP_ARCH_PPC64LE"},  {"SCMP_ARCH_S390"},        {"SCMP_ARCH_S390X"},
    {"SCMP_ARCH_PARISC"},  {"SCMP_ARCH_PARISC64"}, {"SCMP_ARCH_RISCV64"},     {"SCMP_ARCH_LOONGARCH64"},
    {"SCMP_ARCH_M68K"},    {"SCMP_ARCH_SH"},       {"SCMP_ARCH_SHEB"},
};
constexpr std::string_view kLogFlag = "SECCOMP_FILTER_FLAG_LOG";
// All processes of a container have the filter from their start, so that the first has nothing to do; nor has the
// second, where nothing is mitigated.
constexpr Named kFlags[] = {{"SECCOMP_FILTER_FLAG_TSYNC"}, {"SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, {kLogFlag}};

template <typename T, size_t kSize>
const T* Find(const T (&table)[kSize], std::string_view name) {
  const T* found = std::find_if(std::begin(table), std::end(table), [&](const T& t) { return t.name == name; });
  return found != std::end(table) ? found : nullptr;
}
template <typename T, size_t kSize>
std::vector<std::string> Names(const T (&table)[kSize]) {
  std::vector<std::string> names;
  for (const T& t : table) names.emplace_back(t.name);
  return names;
}

// Of the fields of one profile.
class Compiler final {
 public:
  enum class How : uint8_t {
    kSplit,
    kWhole,  // all by the library
  };
  Compiler(const Seccomp& seccomp, const std::string& file_name, How how)
      : seccomp_(seccomp), file_name_(file_name), how_(how) {}

  Expected<SeccompProgram> Compile() {
    for (size_t i = 0; i < seccomp_.architectures.size(); i++) {
      const std::string& name = seccomp_.architectures[i];
      if (Find(kArchitectures, name) == nullptr) {
        return Fail(fmt::format("architectures[{}]", i), fmt::format("unknown architecture \"{}\"", name));
      }
    }
    SeccompProgram program;
    for (size_t i = 0; i < seccomp_.flags.size(); i++) {
      const std::string& name = seccomp_.flags[i];
      if (Find(kFlags, name) == nullptr) {
        return Fail(fmt::format("flags[{}]", i), fmt::format("flag \"{}\" is not supported", name));
      }
      program.log |= name == kLogFlag;
    }
    if (!seccomp_.listener_path.empty()) return Fail("listenerPath", kNoListener);
    Expected<uint32_t> by_default = ActionOf(seccomp_.default_action, seccomp_.default_error, "default");
    if (!by_default) return std::unexpected(by_default.error());
    for (size_t i = 0; i < seccomp_.rules.size(); i++) {
      if (Expected<void> read = ReadRule(seccomp_.rules[i], i, *by_default); !read) {
        return std::unexpected(read.error());
      }
    }
    // What the host's kernel lacks the guest's has.
    (void)seccomp_api_set(6);
    context_.reset(seccomp_init(*by_default));
    if (!context_) return Fail("", "cannot be compiled");
    // Only numbers of x32, which the guest has not.
    (void)seccomp_attr_set(context_.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
    // A tree and not a list.
    (void)seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
    for (const Rule& rule : rules_) {
      if (how_ == How::kSplit && IsDecidedByNumber(rule.number)) continue;
      if (Expected<void> added = Add(rule); !added) return std::unexpected(added.error());
    }
    // The guest makes calls of x86-64 only, so that the architecture need not be asked for before the number.
    program.code = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    if (!Find(kActions, seccomp_.default_action)->lets_through && *by_default != SCMP_ACT_ERRNO(ENOSYS) &&
        newest_ > 0) {
      program.code.push_back(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, static_cast<uint32_t>(newest_), 0, 1));
      program.code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
    }
    if (how_ == How::kSplit) AppendDecisions(DecidedByNumber(), *by_default, kFirstOfX32, &program.code);
    if (Expected<void> written = Export(&program.code); !written) return std::unexpected(written.error());
    return program;
  }

 private:
  std::unexpected<std::string> Fail(const std::string& field, const std::string& what) const {
    return std::unexpected(
        OneLine(fmt::format("{}: linux.seccomp{}{}: {}", file_name_, field.empty() ? "" : ".", field, what)));
  }

  // The value, error number included. `path`: of the rule, or "default".
  Expected<uint32_t> ActionOf(const std::string& name, std::optional<uint16_t> error, const std::string& path) const {
    const bool by_default = path == "default";
    const std::string action_field = by_default ? "defaultAction" : path + ".action";
    const std::string error_field = by_default ? "defaultErrnoRet" : path + ".errnoRet";
    if (name == "SCMP_ACT_NOTIFY") return Fail(action_field, kNoListener);
    const Action* action = Find(kActions, name);
    if (action == nullptr) return Fail(action_field, fmt::format("unknown action \"{}\"", name));
    if (!action->takes_error) {
      if (error) return Fail(error_field, fmt::format("action {} has none", name));
      return action->value;
    }
    return action->value | error.value_or(EPERM);
  }

  // A call, or one of several conditions for it.
  struct Rule {
    uint32_t action;
    int number;
    std::vector<scmp_arg_cmp> conditions;
    const std::string* name;  // in seccomp_
    size_t index;             // of the rule there
  };

  // Of a call whose arguments do not count, and for which there is one answer: most are, and the library takes long for
  // each.
  bool IsDecidedByNumber(int number) const {
    auto it = by_number_.find(number);
    return it != by_number_.end() && !it->second.conditional && it->second.actions.size() == 1;
  }
  std::map<uint32_t, Decision> DecidedByNumber() const {
    std::map<uint32_t, Decision> decisions;
    for (const auto& [number, rules] : by_number_) {
      decisions[static_cast<uint32_t>(number)] =
          IsDecidedByNumber(number) ? Decision(*rules.actions.begin()) : std::nullopt;
    }
    return decisions;
  }

  Expected<void> ReadRule(const Seccomp::Rule& rule, size_t index, uint32_t by_default) {
    const std::string path = fmt::format("syscalls[{}]", index);
    Expected<uint32_t> action = ActionOf(rule.action, rule.error, path);
    if (!action) return std::unexpected(action.error());
    std::vector<scmp_arg_cmp> conditions;
    bool twice = false;
    for (size_t i = 0; i < rule.conditions.size(); i++) {
      const Seccomp::Condition& c = rule.conditions[i];
      const std::string where = fmt::format("{}.args[{}]", path, i);
      const Operator* op = Find(kOperators, c.op);
      if (op == nullptr) return Fail(where + ".op", fmt::format("unknown operator \"{}\"", c.op));
      if (c.index > 5) return Fail(where + ".index", fmt::format("there is no argument {}", c.index));
      for (const scmp_arg_cmp& other : conditions) twice |= other.arg == c.index;
      conditions.push_back({.arg = c.index, .op = op->value, .datum_a = c.value, .datum_b = c.value_two});
    }
    for (const std::string& name : rule.names) {
      const int number = seccomp_syscall_resolve_name(name.c_str());
      if (number < 0) continue;  // not known, or not a call of this machine
      newest_ = std::max(newest_, number);
      if (*action == by_default) continue;
      OfNumber& of = by_number_[number];
      of.conditional |= !conditions.empty();
      if (conditions.empty() && !of.actions.insert(*action).second) continue;
      auto add = [&](std::vector<scmp_arg_cmp> those) {
        rules_.push_back({*action, number, std::move(those), &name, index});
      };
      if (!twice) {
        add(conditions);
      } else {
        // Two conditions for one argument were alternatives from the start, and engines rely on it.
        for (const scmp_arg_cmp& c : conditions) add({c});
      }
      if (rules_.size() > kMaxRules) return Fail(path, fmt::format("more than {} rules", kMaxRules));
    }
    return {};
  }

  Expected<void> Add(const Rule& rule) {
    const int r = seccomp_rule_add_array(context_.get(), rule.action, rule.number,
                                         static_cast<unsigned>(rule.conditions.size()), rule.conditions.data());
    // The same once more.
    if (r == 0 || r == -EEXIST) return {};
    return Fail(fmt::format("syscalls[{}]", rule.index), fmt::format("rule for {}: {}", *rule.name, std::strerror(-r)));
  }

  Expected<void> Export(std::vector<sock_filter>* code) const {
    const int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0) return Fail("", fmt::format("memfd: {}", std::strerror(errno)));
    const int r = seccomp_export_bpf(context_.get(), fd);
    const off_t size = lseek(fd, 0, SEEK_END);
    const size_t before = code->size();
    code->resize(before + static_cast<size_t>(size) / sizeof(sock_filter));
    const bool read = r == 0 && pread(fd, code->data() + before, static_cast<size_t>(size), 0) == size;
    close(fd);
    if (!read) return Fail("", fmt::format("cannot be compiled: {}", std::strerror(r != 0 ? -r : errno)));
    if (code->size() > BPF_MAXINSNS) {
      return Fail("", fmt::format("makes {} instructions, of which {} are allowed", code->size(), BPF_MAXINSNS));
    }
    return {};
  }

  struct Release {
    void operator()(void* context) const { seccomp_release(context); }
  };

  const Seccomp& seccomp_;
  const std::string& file_name_;
  std::unique_ptr<void, Release> context_;
  const How how_;
  static constexpr size_t kMaxRules = 2000;  // engines have some 400
  static constexpr uint32_t kFirstOfX32 = 0x40000000;
  std::vector<Rule> rules_;
  struct OfNumber {
    bool conditional = false;
    std::set<uint32_t> actions;  // of rules without conditions
  };
  std::map<int, OfNumber> by_number_;
  int newest_ = 0;  // the largest number that the profile names
};

}  // namespace

Expected<SeccompProgram> CompileSeccomp(const Seccomp& seccomp, const std::string& file_name) {
  return Compiler(seccomp, file_name, Compiler::How::kSplit).Compile();
}

Expected<SeccompProgram> CompileSeccompByLibrary(const Seccomp& seccomp, const std::string& file_name) {
  return Compiler(seccomp, file_name, Compiler::How::kWhole).Compile();
}

std::vector<std::string> SeccompActions() { return Names(kActions); }
std::vector<std::string> SeccompOperators() { return Names(kOperators); }
std::vector<std::string> SeccompArchitectures() { return Names(kArchitectures); }
std::vector<std::string> SeccompFlags() { return Names(kFlags); }

}  // namespace redoubt::specutils

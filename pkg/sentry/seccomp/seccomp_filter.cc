#include "pkg/sentry/seccomp/seccomp_filter.h"

#include <linux/audit.h>

#include <cstring>
#include <utility>

namespace redoubt {
namespace {

constexpr size_t kWords = sizeof(seccomp_data) / sizeof(uint32_t);
constexpr size_t kInstructionPointerWord = offsetof(seccomp_data, instruction_pointer) / sizeof(uint32_t);

}  // namespace

SeccompFilter::SeccompFilter(bpf::Program program, bool log)
    : program_(std::move(program)),
      log_(log),
      loads_instruction_pointer_(program_.Loads(kInstructionPointerWord) ||
                                 program_.Loads(kInstructionPointerWord + 1)),
      path_(program_.size() + kPenalty) {
  for (uint32_t number = 0; number < kNumbers; number++) {
    const uint32_t known[] = {number, AUDIT_ARCH_X86_64};
    const std::optional<uint32_t> result = program_.RunPrefix(known);
    always_[number] = result && (*result & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ALLOW;
  }
}

Result<RefPtr<SeccompFilter>> SeccompFilter::Create(std::span<const sock_filter> code, bool log) {
  // Before `new`, whose memory would be lost.
  bpf::Program program = TRY(bpf::Program::Create(code, kWords));
  return RefPtr<SeccompFilter>(new SeccompFilter(std::move(program), log));
}

SeccompFilter::~SeccompFilter() {
  if (listener_) listener_->UsersGone();
}

bool SeccompFilter::HasListener() const {
  for (const SeccompFilter* f = this; f != nullptr; f = f->older_.get()) {
    if (f->listener_) return true;
  }
  return false;
}

Result<> SeccompFilter::Attach(RefPtr<const SeccompFilter> older) {
  if (!older) return {};
  if (program_.size() + older->path_ > kMaxPath) return Err(ENOMEM);
  path_ += older->path_;
  count_ += older->count_;
  always_ &= older->always_;
  loads_instruction_pointer_ |= older->loads_instruction_pointer_;
  older_ = std::move(older);
  return {};
}

// One after the other: they may be thousands, and a fiber's stack is small.
void SeccompFilter::OnZeroRefs() {
  const SeccompFilter* next = older_.Release();
  delete this;
  while (next != nullptr && next->DropRefIsLast()) {
    const SeccompFilter* last = next;
    next = const_cast<SeccompFilter*>(last)->older_.Release();
    delete last;
  }
}

SeccompFilter::Verdict SeccompFilter::Run(const seccomp_data& data) const {
  uint32_t words[kWords];
  std::memcpy(words, &data, sizeof(words));
  Verdict verdict;
  // Read as signed numbers, actions are in the order of their precedence.
  int32_t first = SECCOMP_RET_ALLOW;
  for (const SeccompFilter* f = this; f != nullptr; f = f->older_.get()) {
    const uint32_t result = f->program_.Run(words);
    const auto action = static_cast<int32_t>(result & SECCOMP_RET_ACTION_FULL);
    if (action >= first) continue;
    first = action;
    verdict = {static_cast<uint32_t>(action), static_cast<uint16_t>(result & SECCOMP_RET_DATA), f->log_,
               f->listener_.get()};
  }
  switch (verdict.action) {
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
    case SECCOMP_RET_ERRNO:
    case SECCOMP_RET_USER_NOTIF:
    case SECCOMP_RET_TRACE:
    case SECCOMP_RET_LOG:
    case SECCOMP_RET_ALLOW:
      break;
    default:
      verdict.action = SECCOMP_RET_KILL_PROCESS;
  }
  return verdict;
}

bool SeccompFilter::IsPartOf(const SeccompFilter* newer) const {
  for (const SeccompFilter* f = newer; f != nullptr; f = f->older_.get()) {
    if (f == this) return true;
  }
  return false;
}

}  // namespace redoubt

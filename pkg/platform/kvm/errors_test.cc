// A host that refuses.
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "pkg/log/log.h"
#include "pkg/platform/kvm/address_space.h"
#include "pkg/platform/kvm/api_unsafe.h"
#include "pkg/platform/kvm/kvm.h"
#include "pkg/platform/kvm/machine.h"
#include "pkg/platform/kvm/table_memory.h"
#include "pkg/platform/kvm/vm.h"

namespace redoubt::platform::kvm {
namespace {

// The real host but for what a test changes.
class FakeApi final : public Api {
 public:
  Result<Fd> Open() override {
    if (open_error != 0) return Err(open_error);
    return Api::Open();
  }
  Result<int> Ioctl(int fd, unsigned long request, uintptr_t argument) override {
    if (request == KVM_CHECK_EXTENSION && missing.contains(argument)) return 0;
    if (auto it = errors.find(request); it != errors.end()) return Err(it->second);
    calls[request]++;
    return Api::Ioctl(fd, request, argument);
  }
  int open_error = 0;
  std::set<unsigned long> missing;
  std::map<unsigned long, int> errors;
  std::map<unsigned long, int> calls;
};

class KvmErrors : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = memfd_create("errors", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(memory_, 1 << 20), 0);
    log_ = memfd_create("log", MFD_CLOEXEC);
    log::Configure(log_, log::Level::kError);
  }
  void TearDown() override {
    log::Configure(STDERR_FILENO, log::Level::kWarning);
    close(memory_);
    close(log_);
  }
  std::string Log() {
    std::string text(1 << 16, 0);
    ssize_t n = pread(log_, text.data(), text.size(), 0);
    text.resize(n > 0 ? n : 0);
    return text;
  }
  // What a start that must fail ends with.
  Errno Start() {
    auto made = Create(api_, Requirements{.memory_fd = memory_});
    EXPECT_FALSE(made.has_value());
    return made ? Errno(1) : made.error();
  }

  FakeApi api_;
  int memory_ = -1;
  int log_ = -1;
};

TEST_F(KvmErrors, NoKvm) {
  api_.open_error = ENOENT;
  EXPECT_EQ(Start(), Errno(ENOENT));
  EXPECT_NE(Log().find("/dev/kvm: this host has no KVM (ENOENT)"), std::string::npos) << Log();
  EXPECT_NE(Log().find("systrap and ptrace"), std::string::npos) << "what would work";
}

TEST_F(KvmErrors, NoRight) {
  api_.open_error = EACCES;
  EXPECT_EQ(Start(), Errno(EACCES));
  EXPECT_NE(Log().find("no right to use it"), std::string::npos) << Log();
}

TEST_F(KvmErrors, VirtualizationDisabled) {
  api_.errors[KVM_CREATE_VM] = EBUSY;
  EXPECT_EQ(Start(), Errno(EBUSY));
  EXPECT_NE(Log().find("refuses a virtual machine (EBUSY)"), std::string::npos) << Log();
}

TEST_F(KvmErrors, EachCapabilityIsNamed) {
  for (auto [capability, name] :
       std::initializer_list<std::pair<unsigned long, const char*>>{{KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS"},
                                                                    {KVM_CAP_SYNC_MMU, "KVM_CAP_SYNC_MMU"},
                                                                    {KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS"},
                                                                    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
                                                                    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
                                                                    {KVM_CAP_XSAVE2, "KVM_CAP_XSAVE2"}}) {
    api_.missing = {capability};
    EXPECT_EQ(Start(), Errno(EOPNOTSUPP)) << name;
    EXPECT_NE(Log().find(name), std::string::npos) << name;
  }
}

// Whatever call fails at the start, the error comes out and nothing leaks or crashes.
TEST_F(KvmErrors, EveryCallOfTheStart) {
  {
    ASSERT_TRUE(Create(api_, Requirements{.memory_fd = memory_}).has_value());
  }
  std::map<unsigned long, int> calls = api_.calls;
  EXPECT_GE(calls.size(), 10u);
  for (auto [request, count] : calls) {
    if (request == KVM_CHECK_EXTENSION) continue;
    api_.errors = {{request, ENOMEM}};
    Errno e = Start();
    EXPECT_TRUE(e == Errno(ENOMEM) || e == Errno(EOPNOTSUPP)) << std::hex << request << " " << e.name();
  }
  api_.errors.clear();
  EXPECT_TRUE(Create(api_, Requirements{.memory_fd = memory_}).has_value());
}

TEST_F(KvmErrors, TablesAreNotReusedBeforeTheirSlotHasGone) {
  std::unique_ptr<Vm> vm = *Vm::Create(api_);
  std::unique_ptr<TableMemory> memory = *TableMemory::Create(*vm);
  constexpr size_t kPerChunk = kTableChunk / kPageSize;
  std::vector<ring0::pagetables::PTEs*> tables;
  for (size_t i = 0; i < kPerChunk; i++) {
    tables.push_back(*memory->NewPTEs());
    tables.back()->entries[7] = 1;
    EXPECT_EQ(memory->LookupPTEs(memory->PhysicalFor(tables.back())), tables.back());
  }
  EXPECT_EQ(memory->chunks_in_use(), 1u);
  // All but one: nothing comes back.
  for (size_t i = 1; i < kPerChunk; i++) memory->FreePTEs(tables[i]);
  ring0::pagetables::PTEs* other = *memory->NewPTEs();
  EXPECT_EQ(memory->chunks_in_use(), 2u);
  for (ring0::pagetables::PTEs* t : tables) EXPECT_NE(t, other);
  const int before = api_.calls[KVM_SET_USER_MEMORY_REGION];
  memory->FreePTEs(tables[0]);
  EXPECT_EQ(api_.calls[KVM_SET_USER_MEMORY_REGION], before + 1) << "the slot goes";
  EXPECT_EQ(memory->chunks_in_use(), 1u);
  // And comes again, zero.
  for (size_t i = 1; i < kPerChunk; i++) (void)*memory->NewPTEs();
  for (size_t i = 0; i < kPerChunk; i++) EXPECT_EQ((*memory->NewPTEs())->entries[7], 0u);
  // A host without room for another slot.
  api_.errors = {{KVM_SET_USER_MEMORY_REGION, ENOMEM}};
  EXPECT_EQ(memory->NewPTEs().error(), Errno(ENOMEM));
  api_.errors.clear();
  EXPECT_TRUE(memory->NewPTEs().has_value());
}

TEST_F(KvmErrors, PageTablesOfAProcessAreBounded) {
  std::shared_ptr<Machine> machine = *Machine::Create(api_, memory_);
  auto space = MakeRef<KvmAddressSpace>(machine, memory_, *machine->NewTables(), 16);
  // Each is unmapped again, but its table stays.
  Result<> r;
  int mapped = 0;
  for (; mapped < 100 && r; mapped++) {
    const Addr addr = 0x10000000 + mapped * kHugePageSize;
    r = space->MapFile(addr, memory_, 0, kPageSize, kReadWrite, false);
    if (r) {
      ASSERT_TRUE(space->Unmap(addr, kPageSize).has_value());
    }
  }
  ASSERT_FALSE(r.has_value());
  EXPECT_EQ(r.error(), Errno(ENOMEM));
  EXPECT_LE(mapped, 16);
  // Others are not concerned.
  auto other = MakeRef<KvmAddressSpace>(machine, memory_, *machine->NewTables(), 16);
  EXPECT_TRUE(other->MapFile(0x10000000, memory_, 0, kPageSize, kReadWrite, false).has_value());
}

TEST(Kvm, HardwareIsWhatTheHostSays) {
  std::ifstream in("/proc/cpuinfo");
  bool says = false;
  for (std::string word; in >> word;) says |= word == "vmx" || word == "svm";
  EXPECT_EQ(HasHardware(), says && access("/dev/kvm", R_OK | W_OK) == 0);
}

}  // namespace
}  // namespace redoubt::platform::kvm

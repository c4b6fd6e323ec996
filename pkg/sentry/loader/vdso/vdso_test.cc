#include "pkg/sentry/loader/vdso/vdso.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <map>
#include <string>
#include <thread>

#include "pkg/sentry/loader/vdso/vdso_image.h"

namespace redoubt::loader {
namespace {

// The image as a guest's libc sees it: symbols by name.
std::map<std::string, uint64_t> Symbols(const char* image) {
  std::map<std::string, uint64_t> symbols;
  auto* header = reinterpret_cast<const Elf64_Ehdr*>(image);
  auto* phdr = reinterpret_cast<const Elf64_Phdr*>(image + header->e_phoff);
  const Elf64_Dyn* dynamic = nullptr;
  for (int i = 0; i < header->e_phnum; i++) {
    if (phdr[i].p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const Elf64_Dyn*>(image + phdr[i].p_vaddr);
  }
  const Elf64_Sym* sym = nullptr;
  const char* names = nullptr;
  const uint32_t* hash = nullptr;
  for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; dynamic++) {
    if (dynamic->d_tag == DT_SYMTAB) sym = reinterpret_cast<const Elf64_Sym*>(image + dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_STRTAB) names = image + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_HASH) hash = reinterpret_cast<const uint32_t*>(image + dynamic->d_un.d_ptr);
  }
  if (sym == nullptr || names == nullptr || hash == nullptr) return symbols;
  for (uint32_t i = 1; i < hash[1]; i++) symbols[names + sym[i].st_name] = sym[i].st_value;
  return symbols;
}

// The image and its time page in this process, which stands in for a guest.
class VdsoTest : public testing::Test {
 protected:
  void SetUp() override {
    std::span<const std::byte> image = VdsoImage();
    size_ = kPageSize + MustPageRoundUp(image.size());
    map_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(map_, MAP_FAILED);
    memcpy(map_ + kPageSize, image.data(), image.size());
    ASSERT_EQ(mprotect(map_ + kPageSize, size_ - kPageSize, PROT_READ | PROT_EXEC), 0);
    vvar_ = reinterpret_cast<redoubt_vvar*>(map_);
    symbols_ = Symbols(map_ + kPageSize);
  }
  void TearDown() override { munmap(map_, size_); }

  template <typename F>
  F* Function(const std::string& name) {
    EXPECT_TRUE(symbols_.contains(name)) << name;
    return reinterpret_cast<F*>(map_ + kPageSize + symbols_[name]);
  }
  void PublishNow() {
    TscClock clock;
    clock.Add(SampleClocks());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ClockParameters p = clock.Add(SampleClocks());
    ASSERT_TRUE(p.usable);
    *vvar_ = {.sequence = 2,
              .usable = 1,
              .base_tsc = p.base_tsc,
              .mult = p.mult,
              .monotonic_base = p.monotonic_base,
              .realtime_offset = p.realtime_offset,
              .boottime_offset = p.boottime_offset};
  }

  char* map_ = nullptr;
  size_t size_ = 0;
  redoubt_vvar* vvar_ = nullptr;
  std::map<std::string, uint64_t> symbols_;
};

using ClockGettime = int(int, timespec*);
int64_t Nanos(const timespec& ts) { return ts.tv_sec * 1'000'000'000 + ts.tv_nsec; }

TEST_F(VdsoTest, ImageIsOneSegmentWithoutRelocations) {
  auto* header = reinterpret_cast<const Elf64_Ehdr*>(map_ + kPageSize);
  auto* phdr = reinterpret_cast<const Elf64_Phdr*>(map_ + kPageSize + header->e_phoff);
  int loads = 0;
  for (int i = 0; i < header->e_phnum; i++) {
    if (phdr[i].p_type == PT_LOAD) {
      loads++;
      EXPECT_EQ(phdr[i].p_vaddr, 0u);
      EXPECT_EQ(phdr[i].p_offset, 0u);
      EXPECT_EQ(phdr[i].p_filesz, phdr[i].p_memsz);
      EXPECT_EQ(phdr[i].p_flags, static_cast<uint32_t>(PF_R | PF_X));
    }
    if (phdr[i].p_type == PT_DYNAMIC) {
      auto* d = reinterpret_cast<const Elf64_Dyn*>(map_ + kPageSize + phdr[i].p_vaddr);
      for (; d->d_tag != DT_NULL; d++) {
        EXPECT_NE(d->d_tag, DT_RELA);
        EXPECT_NE(d->d_tag, DT_TEXTREL);
        EXPECT_NE(d->d_tag, DT_NEEDED);
      }
    }
  }
  EXPECT_EQ(loads, 1);
}

TEST_F(VdsoTest, UnpublishedTimeComesFromTheKernel) {
  auto* get = Function<ClockGettime>("__vdso_clock_gettime");
  timespec a, b;
  ASSERT_EQ(clock_gettime(CLOCK_MONOTONIC, &a), 0);
  ASSERT_EQ(get(CLOCK_MONOTONIC, &b), 0);
  EXPECT_GE(Nanos(b), Nanos(a));
  EXPECT_EQ(get(99, &b), -EINVAL);
}

TEST_F(VdsoTest, PublishedTimeIsTheHosts) {
  if (!TscIsInvariant()) GTEST_SKIP() << "no usable counter";
  PublishNow();
  auto* get = Function<ClockGettime>("__vdso_clock_gettime");
  for (int id : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE}) {
    timespec host, guest;
    ASSERT_EQ(get(id, &guest), 0);
    // Against the fine clock: the host's coarse ones lag by up to a tick.
    int fine = id == CLOCK_REALTIME_COARSE ? CLOCK_REALTIME : id == CLOCK_MONOTONIC_COARSE ? CLOCK_MONOTONIC : id;
    ASSERT_EQ(clock_gettime(fine, &host), 0);
    EXPECT_NEAR(static_cast<double>(Nanos(host) - Nanos(guest)), 0, 20e6) << id;
    EXPECT_LT(guest.tv_nsec, 1'000'000'000);
  }
  timespec cpu;
  EXPECT_EQ(get(CLOCK_PROCESS_CPUTIME_ID, &cpu), 0) << "by system call";
  timeval tv;
  struct timezone tz = {7, 7};
  ASSERT_EQ((Function<int(timeval*, struct timezone*)>("__vdso_gettimeofday")(&tv, &tz)), 0);
  EXPECT_NEAR(static_cast<double>(tv.tv_sec), static_cast<double>(time(nullptr)), 1.0);
  EXPECT_EQ(tz.tz_minuteswest, 0);
  long t = 0;
  EXPECT_EQ(Function<long(long*)>("__vdso_time")(&t), t);
  EXPECT_NEAR(static_cast<double>(t), static_cast<double>(time(nullptr)), 1.0);
  unsigned cpu_number = ~0u;
  EXPECT_EQ((Function<long(unsigned*, unsigned*, void*)>("__vdso_getcpu")(&cpu_number, nullptr, nullptr)), 0);
  EXPECT_NE(cpu_number, ~0u);
}

TEST_F(VdsoTest, PublishedTimeDoesNotTrap) {
  // A page whose numbers say 1,000 s plus nothing: only a function that reads it can answer that.
  *vvar_ = {.sequence = 0,
            .usable = 1,
            .base_tsc = ~0ull,
            .mult = 1,
            .monotonic_base = 1000'000'000'005,
            .realtime_offset = 1};
  timespec ts;
  ASSERT_EQ(Function<ClockGettime>("__vdso_clock_gettime")(CLOCK_MONOTONIC, &ts), 0);
  EXPECT_EQ(Nanos(ts), 1000'000'000'005);
  ASSERT_EQ(Function<ClockGettime>("clock_gettime")(CLOCK_REALTIME, &ts), 0);
  EXPECT_EQ(Nanos(ts), 1000'000'000'006);
}

TEST_F(VdsoTest, WaitsWhileThePageChanges) {
  *vvar_ = {.sequence = 1, .usable = 1, .base_tsc = ~0ull, .mult = 1, .monotonic_base = 1};
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    __atomic_store_n(&vvar_->monotonic_base, 2, __ATOMIC_RELAXED);
    __atomic_store_n(&vvar_->sequence, 2, __ATOMIC_RELEASE);
  });
  timespec ts;
  ASSERT_EQ(Function<ClockGettime>("__vdso_clock_gettime")(CLOCK_MONOTONIC, &ts), 0);
  writer.join();
  EXPECT_EQ(Nanos(ts), 2);
}

}  // namespace
}  // namespace redoubt::loader

// Real programs, loaded into real address spaces and run under ptrace up to their first system call.
#include "pkg/sentry/loader/loader.h"

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <map>
#include <sstream>

#include "pkg/fiber/fiber.h"
#include "pkg/platform/ptrace/ptrace.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/sentry/loader/vdso/vdso.h"

namespace redoubt::loader {
namespace {

// A file in pages of the memory file.
class TestFile final : public vfs::FileDescription, public memmap::Mappable {
 public:
  TestFile(pgalloc::MemoryFile& mf, std::string bytes)
      : FileDescription({}, O_RDONLY), mf_(mf), bytes_(std::move(bytes)) {
    pages_ = *mf_.Allocate(MustPageRoundUp(std::max<size_t>(bytes_.size(), 1)));
    memcpy(mf_.At(pages_.start), bytes_.data(), bytes_.size());
  }
  ~TestFile() override { mf_.DecRef(pages_); }
  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) override {
    if (offset >= bytes_.size()) return 0;
    return dst.CopyOut(std::as_bytes(std::span(bytes_)).subspan(offset));
  }
  Result<> ConfigureMMap(mm::MMapOptions& o) override {
    o.mappable = this;
    o.identity = RefPtr<memmap::MappingIdentity>(this);
    return {};
  }
  Result<> AddMapping(memmap::MappingSpace&, AddrRange, uint64_t, bool) override { return {}; }
  void RemoveMapping(memmap::MappingSpace&, AddrRange, uint64_t, bool) override {}
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType) override {
    if (offset >= pages_.length()) return Err(EIO);
    memmap::FileRange r{pages_.start + offset, pages_.start + std::min(offset + length, pages_.length())};
    mf_.IncRef(r);
    return r;
  }
  std::string MappedName() const override { return "/test"; }
  uint64_t MappedDevice() const override { return 1; }
  uint64_t MappedInode() const override { return 1; }

 private:
  pgalloc::MemoryFile& mf_;
  const std::string bytes_;
  memmap::FileRange pages_;
};

std::string ReadHostFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream s;
  s << in.rdbuf();
  EXPECT_FALSE(s.str().empty()) << path;
  return s.str();
}

const std::string kDir = "pkg/sentry/loader/";

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_file_ = *pgalloc::MemoryFile::Create({});
    platform_ = *platform::ptrace::Create({.memory_fd = memory_file_->fd()});
    executor_ = fiber::ThreadedExecutor::Create({.slots = 1});
    vdso_ = *Vdso::Create(*memory_file_);
    files_["/prog"] = ReadHostFile(kDir + "test_program.elf");
    files_["/pie"] = ReadHostFile(kDir + "test_program_pie.elf");
    args_.random = [this](std::span<std::byte> b) {
      for (std::byte& x : b) x = static_cast<std::byte>(seed_ = seed_ * 1103515245 + 12345);
    };
    args_.open = [this](const std::string& name) { return Open(name); };
    args_.vdso = vdso_.get();
  }
  Result<RefPtr<vfs::FileDescription>> Open(const std::string& name) {
    if (!files_.contains(name)) return Err(ENOENT);
    return RefPtr<vfs::FileDescription>(MakeRef<TestFile>(*memory_file_, files_[name]));
  }

  // Runs it to its first system call.
  struct Started {
    platform::Registers regs{};
    std::vector<std::string> argv, envv;
    std::map<uint64_t, uint64_t> auxv;
    std::string execfn, maps;
    Image image;
    mm::MemoryManager::ExecInfo info;
  };
  Result<Started> Start(const std::string& name) {
    Result<Started> result = Err(EIO);
    executor_->Spawn([&] { result = StartInFiber(name); });
    fiber::Join(*executor_);
    return result;
  }
  Result<Started> StartInFiber(const std::string& name) {
    args_.file = TRY(Open(name));
    args_.filename = name;
    RefPtr<mm::MemoryManager> mm = TRY(mm::MemoryManager::Create(*platform_, *memory_file_));
    mm->AddUser();
    Result<Started> s = Run(*mm);
    mm->DropUser();
    args_.file.reset();
    return s;
  }
  Result<Started> Run(mm::MemoryManager& mm) {
    Started s;
    s.image = TRY(Load(args_, mm));
    s.regs = s.image.regs;
    auto context = TRY(platform_->NewContext());
    for (;;) {
      platform::TrapInfo t = TRY(context->Switch(mm.address_space(), s.regs));
      if (t.trap == platform::Trap::kSyscall) break;
      if (t.trap == platform::Trap::kInterrupted) continue;
      if (!t.is_page_fault()) return Err(EFAULT);
      TRY(mm.HandleUserFault(reinterpret_cast<Addr>(t.signal.addr), t.access, t.access_known, s.regs.rsp));
    }
    mm.CheckInvariants();
    Addr p = s.image.regs.rsp;
    uint64_t argc = TRY(mm.CopyInObject<uint64_t>(p));
    p += 8;
    for (uint64_t i = 0; i < argc; i++, p += 8) {
      s.argv.push_back(TRY(mm.CopyInString(TRY(mm.CopyInObject<uint64_t>(p)), 1 << 20)));
    }
    p += 8;
    for (uint64_t a; (a = TRY(mm.CopyInObject<uint64_t>(p))) != 0; p += 8)
      s.envv.push_back(TRY(mm.CopyInString(a, 4096)));
    p += 8;
    for (uint64_t a; (a = TRY(mm.CopyInObject<uint64_t>(p))) != AT_NULL; p += 16) {
      s.auxv[a] = TRY(mm.CopyInObject<uint64_t>(p + 8));
    }
    s.execfn = TRY(mm.CopyInString(s.auxv[AT_EXECFN], 4096));
    for (const mm::MapsEntry& e : mm.Maps()) s.maps += e.name + ";";
    s.info = mm.exec_info();
    return s;
  }
  void ExpectRan(const Started& s) {
    EXPECT_EQ(s.regs.orig_rax, 1000u);
    EXPECT_EQ(s.regs.rdi, s.image.regs.rsp);
    EXPECT_EQ(s.regs.rsi, 0x1234567890abcdefu) << ".data";
    EXPECT_EQ(s.regs.rdx, 0u) << ".bss";
  }

  std::unique_ptr<pgalloc::MemoryFile> memory_file_;
  std::unique_ptr<platform::Platform> platform_;
  std::unique_ptr<Vdso> vdso_;
  std::unique_ptr<fiber::Executor> executor_;
  std::map<std::string, std::string> files_;
  uint32_t seed_ = 1;
  Args args_;
};

TEST_F(LoaderTest, StaticProgramStarts) {
  args_.argv = {"prog", "one", ""};
  args_.envv = {"HOME=/"};
  args_.secure = true;
  Result<Started> s = Start("/prog");
  ASSERT_TRUE(s.has_value()) << s.error().name();
  ExpectRan(*s);
  EXPECT_EQ(s->argv, args_.argv);
  EXPECT_EQ(s->envv, args_.envv);
  EXPECT_EQ(s->execfn, "/prog");
  EXPECT_EQ(s->image.name, "prog");
  EXPECT_EQ(s->auxv[AT_BASE], 0u);
  EXPECT_EQ(s->auxv[AT_ENTRY], s->image.regs.rip);
  EXPECT_EQ(s->auxv[AT_PAGESZ], 4096u);
  EXPECT_EQ(s->auxv[AT_PHENT], 56u);
  EXPECT_NE(s->auxv[AT_PHDR], 0u);
  EXPECT_EQ(s->auxv[AT_SECURE], 1u);
  EXPECT_GT(s->auxv[AT_MINSIGSTKSZ], 1000u);
  EXPECT_NE(s->auxv[AT_SYSINFO_EHDR], 0u);
  EXPECT_NE(s->maps.find("[vvar];[vdso];"), std::string::npos) << s->maps;
  EXPECT_NE(s->maps.find("[stack]"), std::string::npos);
  EXPECT_EQ(s->info.argv.length(), sizeof("prog") + sizeof("one") + 1);
  EXPECT_GE(s->info.start_brk, s->info.data.end);
}

TEST_F(LoaderTest, PositionIndependentProgramStartsAndMoves) {
  Result<Started> a = Start("/pie");
  ASSERT_TRUE(a.has_value()) << a.error().name();
  ExpectRan(*a);
  EXPECT_EQ(a->argv, std::vector<std::string>{""}) << "never without argv[0]";
  Result<Started> b = Start("/pie");
  ASSERT_TRUE(b.has_value());
  EXPECT_NE(a->image.regs.rsp, b->image.regs.rsp) << "addresses are random";
}

TEST_F(LoaderTest, InterpreterRunsInsteadOfTheProgram) {
  std::string prog = files_["/prog"];
  // The note that asks for no executable stack becomes a PT_INTERP.
  auto* header = reinterpret_cast<Elf64_Ehdr*>(prog.data());
  auto* phdr = reinterpret_cast<Elf64_Phdr*>(prog.data() + header->e_phoff);
  for (int i = 0; i < header->e_phnum; i++) {
    if (phdr[i].p_type == PT_GNU_STACK) {
      phdr[i] = {PT_INTERP, PF_R, prog.size(), 0, 0, 5, 5, 1};
      break;
    }
  }
  uint64_t entry = header->e_entry;
  prog += std::string("/pie\0", 5);
  files_["/dynamic"] = prog;
  Result<Started> s = Start("/dynamic");
  ASSERT_TRUE(s.has_value()) << s.error().name();
  ExpectRan(*s);
  EXPECT_EQ(s->auxv[AT_ENTRY], entry);
  EXPECT_NE(s->auxv[AT_BASE], 0u);
  EXPECT_GE(s->image.regs.rip, s->auxv[AT_BASE]);
  // The interpreter is broken, or missing.
  files_["/pie"] = "#!/prog\n";
  EXPECT_EQ(Start("/dynamic").error(), Errno(ELIBBAD));
  files_.erase("/pie");
  EXPECT_EQ(Start("/dynamic").error(), Errno(ENOENT));
}

TEST_F(LoaderTest, ScriptsRunTheirInterpreters) {
  files_["/s1"] = "#!/prog -x y\n";
  args_.argv = {"s1", "arg"};
  Result<Started> s = Start("/s1");
  ASSERT_TRUE(s.has_value()) << s.error().name();
  EXPECT_EQ(s->argv, (std::vector<std::string>{"/prog", "-x y", "/s1", "arg"}));
  EXPECT_EQ(s->execfn, "/s1");
  EXPECT_EQ(s->image.name, "s1");
  for (int i = 2; i <= 6; i++) files_["/s" + std::to_string(i)] = "#!/s" + std::to_string(i - 1) + "\n";
  s = Start("/s5");
  ASSERT_TRUE(s.has_value()) << s.error().name();
  EXPECT_EQ(s->argv, (std::vector<std::string>{"/prog", "-x y", "/s1", "/s2", "/s3", "/s4", "/s5", "arg"}));
  EXPECT_EQ(Start("/s6").error(), Errno(ELOOP));
  files_["/lost"] = "#!/nowhere\n";
  EXPECT_EQ(Start("/lost").error(), Errno(ENOENT));
}

TEST_F(LoaderTest, BadProgramsAreErrors) {
  files_["/empty"] = "";
  files_["/text"] = "echo hello\n";
  files_["/cut"] = files_["/prog"].substr(0, 100);
  for (const char* name : {"/empty", "/text", "/cut"}) EXPECT_EQ(Start(name).error(), Errno(ENOEXEC)) << name;
  args_.argv = {std::string(200 << 10, 'x')};
  EXPECT_EQ(Start("/prog").error(), Errno(E2BIG));
  args_.argv.assign(100, std::string(100 << 10, 'x'));
  EXPECT_EQ(Start("/prog").error(), Errno(E2BIG));
  args_.argv.assign(10, std::string(100 << 10, 'x'));
  EXPECT_TRUE(Start("/prog").has_value());
}

TEST(ArgumentLimit, IsAQuarterOfTheStackWithinBounds) {
  EXPECT_EQ(ArgumentLimit(8 << 20), 2u << 20);
  EXPECT_EQ(ArgumentLimit(~uint64_t{0}), 6u << 20);
  EXPECT_EQ(ArgumentLimit(0), 128u << 10);
}

}  // namespace
}  // namespace redoubt::loader

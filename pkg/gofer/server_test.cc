#include "pkg/gofer/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "pkg/p9/client.h"
#include "test/fuzz/rounds.h"

namespace redoubt::gofer {
namespace {

namespace fs = std::filesystem;

// A tree of files, a server on a thread of its own, a client.
class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/gofer_test_XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    base_ = dir;
    root_ = base_ / "root";
    fs::create_directories(root_ / "dir/sub");
    Write(root_ / "file", "contents");
    Write(base_ / "secret", "not yours");
    fs::create_symlink("../secret", root_ / "escape");
    fs::create_symlink("/etc", root_ / "absolute");
  }
  void TearDown() override {
    Stop();
    fs::remove_all(base_);
  }
  static void Write(const fs::path& p, const std::string& text) { std::ofstream(p) << text; }
  static std::string Slurp(const fs::path& p) {
    std::ifstream in(p);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  int StartRaw(Options options = {}) {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    server_ = std::make_unique<Server>(UniqueFd(open(root_.c_str(), O_PATH | O_DIRECTORY)),
                                       UniqueFd(open("/proc/self/fd", O_RDONLY | O_DIRECTORY)), options);
    thread_ = std::thread([this, fd = UniqueFd(sockets[1])]() mutable { outcome_ = server_->Serve(fd.get()); });
    return sockets[0];
  }
  RefPtr<p9::File> Start(Options options = {}) {
    Result<RefPtr<p9::Client>> client = p9::Client::Connect(StartRaw(options));
    EXPECT_TRUE(client);
    return *(*client)->Attach();
  }
  void Stop() {
    if (thread_.joinable()) thread_.join();
  }
  static std::span<const std::byte> Bytes(std::string_view s) { return std::as_bytes(std::span(s)); }

  fs::path base_, root_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
  Result<> outcome_;
};

TEST_F(ServerTest, ReadsAndWritesFiles) {
  RefPtr<p9::File> root = Start();
  RefPtr<p9::File> file = *root->Walk({"file"});
  EXPECT_EQ(file->GetAttributes()->size, 8u);
  RefPtr<p9::File> open = *file->Walk({});
  ASSERT_TRUE(open->Open(O_RDWR));
  char buf[32] = {};
  EXPECT_EQ(open->Read(std::as_writable_bytes(std::span(buf)), 0), 8u);
  EXPECT_STREQ(buf, "contents");
  EXPECT_EQ(open->Write(Bytes("CON"), 0), 3u);
  EXPECT_EQ(Slurp(root_ / "file"), "CONtents");
  EXPECT_EQ(root->Walk({"missing"}).error(), Errno(ENOENT));
  EXPECT_EQ(root->Walk({"file", "x"}).error(), Errno(ENOENT));
}

TEST_F(ServerTest, NothingOutsideTheRootIsReached) {
  RefPtr<p9::File> root = Start();
  EXPECT_EQ(root->Walk({".."}).error(), Errno(EINVAL));
  EXPECT_EQ(root->Walk({"dir", "..", "..", "secret"}).error(), Errno(EINVAL));
  EXPECT_EQ(root->Walk({"../secret"}).error(), Errno(EINVAL));
  // A link is an object of its own: it can be read, not followed.
  RefPtr<p9::File> link = *root->Walk({"escape"});
  EXPECT_EQ(link->Readlink(), "../secret");
  EXPECT_EQ(link->Open(O_RDONLY).error(), Errno(ENXIO));
  EXPECT_FALSE(root->Walk({"absolute", "passwd"}));
  // Names in changes are held to the same rule.
  EXPECT_EQ(root->UnlinkAt("../secret", 0).error(), Errno(EINVAL));
  EXPECT_EQ(root->RenameAt("file", *root, "../moved").error(), Errno(EINVAL));
  EXPECT_EQ(root->Mkdir("..", 0755, 0).error(), Errno(EINVAL));
  EXPECT_EQ(Slurp(base_ / "secret"), "not yours");
}

TEST_F(ServerTest, ADirectoryReplacedByALinkLeadsNowhere) {
  RefPtr<p9::File> root = Start();
  std::atomic<bool> stop = false;
  std::thread racer([&] {
    while (!stop) {
      std::error_code ignored;
      fs::rename(root_ / "dir", root_ / "away", ignored);
      fs::create_symlink(base_, root_ / "dir", ignored);
      fs::remove(root_ / "dir", ignored);
      fs::rename(root_ / "away", root_ / "dir", ignored);
    }
  });
  for (int i = 0; i < 2000; i++) EXPECT_FALSE(root->Walk({"dir", "secret"}));
  stop = true;
  racer.join();
}

TEST_F(ServerTest, SpecialFilesAreSeenNotOpened) {
  ASSERT_EQ(mkfifo((root_ / "fifo").c_str(), 0600), 0);
  RefPtr<p9::File> root = Start();
  RefPtr<p9::File> fifo = *root->Walk({"fifo"});
  EXPECT_EQ(fifo->GetAttributes()->mode & S_IFMT, static_cast<uint32_t>(S_IFIFO));
  EXPECT_EQ(fifo->Open(O_RDONLY).error(), Errno(ENXIO));
  EXPECT_EQ(root->Mknod("null", S_IFCHR | 0666, 1, 3, 0).error(), Errno(EPERM));
}

TEST_F(ServerTest, ChangesTheTree) {
  RefPtr<p9::File> root = Start();
  EXPECT_TRUE(root->Mkdir("new", 0750, 0));
  RefPtr<p9::File> created = *root->Walk({"new"});
  ASSERT_TRUE(created->Create("f", O_RDWR, 04640, 0));
  EXPECT_EQ(created->Write(Bytes("data"), 0), 4u);
  struct stat st;
  ASSERT_EQ(stat((root_ / "new/f").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 04640));
  RefPtr<p9::File> directory = *root->Walk({"new"});
  EXPECT_TRUE(root->Symlink("link", "target", 0));
  EXPECT_TRUE(directory->Link("hard", **root->Walk({"file"})));
  EXPECT_TRUE(directory->RenameAt("hard", *root, "moved"));
  EXPECT_EQ(Slurp(root_ / "moved"), "contents");
  EXPECT_TRUE(root->UnlinkAt("moved", 0));
  EXPECT_EQ(root->UnlinkAt("new", AT_REMOVEDIR).error(), Errno(ENOTEMPTY));
  RefPtr<p9::File> file = *root->Walk({"file"});
  EXPECT_TRUE(file->SetAttributes({.valid = p9::kSetSize | p9::kSetMode, .mode = 0600, .size = 3}));
  EXPECT_EQ(Slurp(root_ / "file"), "con");
}

TEST_F(ServerTest, ReadOnlyServersChangeNothing) {
  RefPtr<p9::File> root = Start({.read_only = true});
  EXPECT_EQ(root->Mkdir("x", 0755, 0).error(), Errno(EROFS));
  RefPtr<p9::File> file = *root->Walk({"file"});
  EXPECT_EQ(file->SetAttributes({.valid = p9::kSetSize, .size = 0}).error(), Errno(EROFS));
  EXPECT_EQ(file->Open(O_WRONLY).error(), Errno(EROFS));
  EXPECT_EQ(file->Open(O_RDONLY | O_TRUNC).error(), Errno(EROFS));
  EXPECT_TRUE(file->Open(O_RDONLY));
  EXPECT_EQ(root->UnlinkAt("file", 0).error(), Errno(EROFS));
}

TEST_F(ServerTest, ListsLargeDirectories) {
  for (int i = 0; i < 3000; i++) Write(root_ / "dir" / ("entry" + std::to_string(i)), "");
  RefPtr<p9::File> root = Start();
  RefPtr<p9::File> dir = *root->Walk({"dir"});
  ASSERT_TRUE(dir->Open(O_RDONLY | O_DIRECTORY));
  std::vector<std::string> names;
  uint64_t offset = 0;
  while (true) {
    std::vector<p9::DirectoryEntry> entries = *dir->Readdir(offset);
    if (entries.empty()) break;
    for (auto& e : entries) names.push_back(e.name);
    offset = entries.back().offset;
  }
  EXPECT_EQ(names.size(), 3003u);  // with ".", "..", "sub"
}

TEST_F(ServerTest, ExtendedAttributes) {
  RefPtr<p9::File> root = Start();
  RefPtr<p9::File> file = *root->Walk({"file"});
  Result<> set = file->SetXattr("user.colour", "blue", 0);
  if (!set && set.error() == Errno(EOPNOTSUPP))
    GTEST_SKIP() << "the temporary directory's file system has no user xattrs";
  ASSERT_TRUE(set);
  EXPECT_EQ(file->GetXattr("user.colour"), "blue");
  EXPECT_EQ(*file->ListXattr(), std::vector<std::string>{"user.colour"});
  EXPECT_EQ(file->GetXattr("user.none").error(), Errno(ENODATA));
  EXPECT_EQ(file->SetXattr("security.capability", "x", 0).error(), Errno(EOPNOTSUPP));
}

TEST_F(ServerTest, ExtensionsAreAsStrictAsWhatTheyReplace) {
  RefPtr<p9::File> root = Start();
  p9::File::Found sub = *root->WalkGetAttributes({"dir", "sub"});
  EXPECT_EQ(sub.attributes.mode & S_IFMT, static_cast<uint32_t>(S_IFDIR));
  EXPECT_EQ(root->GetAttributesOf({"file"})->size, 8u);
  for (std::vector<std::string> names :
       {std::vector<std::string>{"none"}, {"dir", "none"}, {"file", "x"}, {"escape", "x"}}) {
    EXPECT_FALSE(root->WalkGetAttributes(names));
    EXPECT_FALSE(root->GetAttributesOf(names));
  }
  EXPECT_EQ(root->WalkGetAttributes({".."}).error(), Errno(EINVAL));
  EXPECT_EQ(root->GetAttributesOf({"dir/sub"}).error(), Errno(EINVAL));
  // A symbolic link is what it is, and is not opened.
  p9::File::Found link = *root->WalkGetAttributes({"escape"});
  EXPECT_EQ(link.attributes.mode & S_IFMT, static_cast<uint32_t>(S_IFLNK));
  EXPECT_FALSE(link.file->OpenCopy(O_RDONLY));

  RefPtr<p9::File> file = *root->Walk({"file"});
  p9::Attributes attributes;
  RefPtr<p9::File> copy = *file->OpenCopy(O_RDWR, &attributes);
  EXPECT_EQ(attributes.size, 8u);
  EXPECT_EQ(copy->Write(Bytes("CON"), 0), 3u);
  EXPECT_EQ(copy->OpenCopy(O_RDONLY).error(), Errno(EBADF)) << "an open fid is not walked from";
  EXPECT_TRUE(file->Walk({})) << "what was copied is not open";
}

TEST_F(ServerTest, ReadOnlyServersOpenNoCopyForWriting) {
  RefPtr<p9::File> root = Start({.read_only = true});
  RefPtr<p9::File> file = *root->Walk({"file"});
  EXPECT_EQ(file->OpenCopy(O_RDWR).error(), Errno(EROFS));
  EXPECT_EQ(file->OpenCopy(O_RDONLY | O_TRUNC).error(), Errno(EROFS));
  EXPECT_TRUE(file->OpenCopy(O_RDONLY));
  EXPECT_EQ(Slurp(root_ / "file"), "contents");
}

TEST_F(ServerTest, PlainClientsGetThePlainProtocol) {
  Result<RefPtr<p9::Client>> client = p9::Client::Connect(StartRaw(), 8192, p9::Client::Dialect::kPlain);
  ASSERT_TRUE(client);
  EXPECT_FALSE((*client)->extended());
  RefPtr<p9::File> root = *(*client)->Attach();
  // The same calls, made of the messages there are.
  EXPECT_EQ(root->WalkGetAttributes({"file"})->attributes.size, 8u);
  EXPECT_EQ(root->GetAttributesOf({"dir", "none"}).error(), Errno(ENOENT));
  EXPECT_TRUE((*root->Walk({"file"}))->OpenCopy(O_RDONLY));
}

TEST_F(ServerTest, ManyFidsComeAndGo) {
  RefPtr<p9::File> root = Start({.max_fids = 200});
  // More than the server allows at a time, were they not clunked.
  for (int i = 0; i < 1000; i++) ASSERT_TRUE(root->Walk({"file"})) << i;
}

// Whatever bytes come, the server answers or hangs up; a sane client afterwards is served.
TEST_F(ServerTest, SurvivesGarbage) {
  fuzz::Rounds(200, [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    int fd = StartRaw({.max_fids = 64});
    {
      Result<RefPtr<p9::Client>> client = p9::Client::Connect(dup(fd), 8192);
      ASSERT_TRUE(client);
      ASSERT_TRUE((*client)->Attach());
    }
    for (int i = 0; i < 50; i++) {
      std::vector<std::byte> m(7 + random() % 60);
      for (std::byte& b : m) b = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 3);
      uint32_t size = static_cast<uint32_t>(m.size());
      memcpy(m.data(), &size, 4);
      m[4] = static_cast<std::byte>(random() % 136);
      if (random() % 50 == 0) m[0] = static_cast<std::byte>(random());
      if (send(fd, m.data(), m.size(), MSG_NOSIGNAL) < 0) break;
      char sink[65536];
      recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
    }
    close(fd);
    Stop();
  });
}

}  // namespace
}  // namespace redoubt::gofer

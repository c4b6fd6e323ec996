#include "pkg/sentry/fsimpl/mqueue/mqueue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/limits/system.h"

namespace redoubt::mqueue {
namespace {

using fstest::Error;

class MqueueTest : public ::testing::Test {
 protected:
  int Open(std::string_view name, int flags, uint32_t mode = 0600) {
    return Error(queues.Open(*creds, name, {.flags = flags, .mode = mode}));
  }
  Queues queues;
  RefPtr<auth::Credentials> root = auth::Credentials::Root();
  RefPtr<auth::Credentials> user = auth::Credentials::ForUser(5, 5, {}, 0);
  RefPtr<auth::Credentials> creds = root;
};

TEST_F(MqueueTest, NamesAsLinuxHasThem) {
  EXPECT_EQ(Open("", O_CREAT | O_RDWR), ENOENT);
  for (const char* name : {".", "..", "/a", "a/b", "a/"}) EXPECT_EQ(Open(name, O_CREAT | O_RDWR), EACCES) << name;
  EXPECT_EQ(Open(std::string(256, 'x'), O_CREAT | O_RDWR), ENAMETOOLONG);
  EXPECT_EQ(Open(std::string(255, 'x'), O_CREAT | O_RDWR), 0);
  EXPECT_EQ(Open("a", O_RDWR), ENOENT);
  EXPECT_EQ(Open("a", O_CREAT | O_RDWR), 0);
  EXPECT_EQ(Open("a", O_CREAT | O_EXCL | O_RDWR), EEXIST);
  EXPECT_EQ(Open("a", O_ACCMODE), EINVAL);
  EXPECT_EQ(Error(queues.Unlink(*root, "")), ENOENT);
  EXPECT_EQ(Error(queues.Unlink(*root, "..")), EACCES);
  EXPECT_EQ(Error(queues.Unlink(*root, "b")), ENOENT);
  EXPECT_EQ(Error(queues.Unlink(*root, "a")), 0);
  EXPECT_EQ(Open("a", O_RDWR), ENOENT);
}

TEST_F(MqueueTest, PermissionsAreTheFiles) {
  EXPECT_EQ(Open("a", O_CREAT | O_RDWR, 0640), 0);
  EXPECT_EQ(Open("b", O_CREAT | O_RDWR, 0602), 0);
  creds = user;
  EXPECT_EQ(Open("a", O_RDONLY), EACCES);
  EXPECT_EQ(Open("b", O_RDONLY), EACCES);
  EXPECT_EQ(Open("b", O_RDWR), EACCES);
  EXPECT_EQ(Open("b", O_WRONLY), 0);
  EXPECT_EQ(Open("c", O_CREAT | O_RDONLY, 0), 0) << "a mode is for the next who opens it";
  EXPECT_EQ(Open("c", O_RDONLY), EACCES);
  // The directory is sticky.
  EXPECT_EQ(Error(queues.Unlink(*user, "b")), EPERM);
  EXPECT_EQ(Error(queues.Unlink(*user, "c")), 0);
}

TEST_F(MqueueTest, WhoMountsItSeesTheSameFiles) {
  fstest::InFiber([&] {
    fstest::World world(queues.filesystem());
    EXPECT_EQ(Open("one", O_CREAT | O_RDWR, 0600), 0);
    EXPECT_EQ(Open("two", O_CREAT | O_RDWR, 0600), 0);
    EXPECT_EQ(Error(world.Open("/three", O_CREAT | O_RDWR, 0644)), 0);
    RefPtr<vfs::FileDescription> file = *world.Open("/one", O_RDONLY);
    ASSERT_NE(dynamic_cast<QueueDescription*>(file.get()), nullptr);
    fstest::Names names;
    ASSERT_TRUE((*world.Open("/", O_RDONLY | O_DIRECTORY))->Getdents(names));
    EXPECT_EQ(names.names(), (std::vector<std::string>{".", "..", "one", "two", "three"}));
    EXPECT_EQ(Error(queues.Unlink(*root, "three")), 0);
    EXPECT_EQ(Error(world.Open("/three", O_RDWR, 0)), ENOENT);
  });
}

TEST_F(MqueueTest, OneWithoutANameLivesAndCountsWhileItIsOpen) {
  limits::System& system = limits::System::Get();
  EXPECT_EQ(limits::MessageQueuesOfUsers().Of(0), 0u);
  RefPtr<vfs::FileDescription> file = *queues.Open(*root, "a", {.flags = O_CREAT | O_RDWR, .mode = 0600});
  const uint64_t one = limits::MessageQueuesOfUsers().Of(0);
  EXPECT_EQ(one, static_cast<QueueDescription&>(*file).queue().size().Charge());
  EXPECT_EQ(Error(queues.Unlink(*root, "a")), 0);
  EXPECT_EQ(file->GetAttributes()->nlink, 0u);
  EXPECT_EQ(Open("a", O_CREAT | O_RDWR), 0);
  EXPECT_EQ(limits::MessageQueuesOfUsers().Of(0), 2 * one);
  file.reset();
  EXPECT_EQ(limits::MessageQueuesOfUsers().Of(0), one);
  EXPECT_EQ(Error(queues.Unlink(*root, "a")), 0);
  EXPECT_EQ(limits::MessageQueuesOfUsers().Of(0), 0u);
  // Whoever may exceed the limit meets one nonetheless.
  system.mq_queues_max = 1;
  int64_t made = 0;
  int error = 0;
  while ((error = Open(std::to_string(made), O_CREAT | O_RDWR)) == 0 && made <= limits::System::kMostQueues) made++;
  EXPECT_EQ(error, ENOSPC);
  EXPECT_EQ(made, limits::System::kMostQueues);
  EXPECT_EQ(Error(queues.Unlink(*root, "0")), 0);
  EXPECT_EQ(Open("0", O_CREAT | O_RDWR), 0);
  system.mq_queues_max = 256;
}

}  // namespace
}  // namespace redoubt::mqueue

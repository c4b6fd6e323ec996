// System V shared memory and semaphores: shmget(2), shmop(2), shmctl(2), semget(2), semop(2), semctl(2).
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <initializer_list>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {
namespace {

// An identifier of what has been removed: EINVAL, or EIDRM once its slot serves another (sysvipc(7) knows both).
MATCHER(SaysItIsGone, "") { return static_cast<int64_t>(arg) == -1 && (errno == EINVAL || errno == EIDRM); }

// A key that no other run uses.
key_t UniqueKey() { return static_cast<key_t>(0x52000000 | (getpid() & 0xffffff)); }

// Objects outlive their makers, so the destructor removes them.
class Shm final {
 public:
  explicit Shm(size_t size = 8192, int flags = 0600, key_t key = IPC_PRIVATE)
      : id_(shmget(key, size, flags | IPC_CREAT)) {
    EXPECT_OK(id_);
  }
  ~Shm() { shmctl(id_, IPC_RMID, nullptr); }
  Shm(const Shm&) = delete;
  Shm& operator=(const Shm&) = delete;
  int id() const { return id_; }
  char* Attach(const void* at = nullptr, int flags = 0) const {
    void* p = shmat(id_, at, flags);
    EXPECT_OK(reinterpret_cast<intptr_t>(p));
    return static_cast<char*>(p);
  }
  shmid_ds Stat() const {
    shmid_ds ds{};
    EXPECT_OK(shmctl(id_, IPC_STAT, &ds));
    return ds;
  }

 private:
  int id_;
};

class Sem final {
 public:
  explicit Sem(int count = 1, int flags = 0600, key_t key = IPC_PRIVATE) : id_(semget(key, count, flags | IPC_CREAT)) {
    EXPECT_OK(id_);
  }
  ~Sem() { semctl(id_, 0, IPC_RMID); }
  Sem(const Sem&) = delete;
  Sem& operator=(const Sem&) = delete;
  int id() const { return id_; }
  int Op(std::initializer_list<sembuf> ops) const {
    std::vector<sembuf> copy(ops);
    return semop(id_, copy.data(), copy.size());
  }
  int Op(short change, short flags = 0) const { return Op({{0, change, flags}}); }
  int Get(int index = 0, int command = GETVAL) const { return semctl(id_, index, command); }
  void Set(int value, int index = 0) const { EXPECT_OK(semctl(id_, index, SETVAL, value)); }

 private:
  int id_;
};

// Shared memory -------------------------------------------------------------------------------------------------------

TEST(Shm, ProcessesShareIt) {
  Shm shm;
  char* p = shm.Attach();
  EXPECT_TRUE(std::all_of(p, p + 8192, [](char c) { return c == 0; }));
  EXPECT_EQ(RunChild([&] {
              p[0] = 'i';  // inherited
              char* mine = shm.Attach();
              EXPECT_NE(mine, p);
              mine[8191] = 'a';
              return 0;
            }),
            0);
  EXPECT_EQ(p[0], 'i');
  EXPECT_EQ(p[8191], 'a');
}

TEST(Shm, StatTellsUse) {
  time_t before = time(nullptr) - 1;
  Shm shm(5000, 0640);
  shmid_ds ds = shm.Stat();
  EXPECT_EQ(ds.shm_segsz, 5000u);
  EXPECT_EQ(ds.shm_nattch, 0u);
  EXPECT_EQ(ds.shm_cpid, getpid());
  EXPECT_EQ(ds.shm_lpid, 0);
  EXPECT_EQ(ds.shm_atime, 0);
  EXPECT_EQ(ds.shm_dtime, 0);
  EXPECT_GE(ds.shm_ctime, before);
  EXPECT_EQ(ds.shm_perm.mode & 0777, 0640u);
  EXPECT_EQ(ds.shm_perm.uid, geteuid());
  EXPECT_EQ(ds.shm_perm.cuid, geteuid());
  EXPECT_EQ(ds.shm_perm.cgid, getegid());
  char* p = shm.Attach();
  ds = shm.Stat();
  EXPECT_EQ(ds.shm_nattch, 1u);
  EXPECT_EQ(ds.shm_lpid, getpid());
  EXPECT_GE(ds.shm_atime, before);
  EXPECT_OK(shmdt(p));
  ds = shm.Stat();
  EXPECT_EQ(ds.shm_nattch, 0u);
  EXPECT_GE(ds.shm_dtime, before);
}

TEST(Shm, AttachmentsAreInheritedAndEndWithExitAndExec) {
  Shm shm;
  shm.Attach();
  int p[2];
  ASSERT_OK(pipe(p));
  pid_t child = Spawn([&] {
    close(p[1]);
    char c;
    EXPECT_RETURNS(read(p[0], &c, 1), 0);
    return 0;
  });
  EXPECT_EQ(shm.Stat().shm_nattch, 2u);
  close(p[1]);
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_EQ(shm.Stat().shm_nattch, 1u);
  child = Spawn([&] {
    execl("/bin/sleep", "sleep", "20", nullptr);
    return 1;
  });
  WaitUntil([&] { return shm.Stat().shm_nattch == 1; });
  kill(child, SIGKILL);
  WaitFor(child);
}

TEST(Shm, KeysName) {
  const key_t key = UniqueKey();
  EXPECT_ERRNO(shmget(key, 4096, 0600), ENOENT);
  Shm shm(4096, 0600, key);
  EXPECT_RETURNS(shmget(key, 4096, 0600), shm.id());
  EXPECT_RETURNS(shmget(key, 0, 0), shm.id());
  EXPECT_RETURNS(shmget(key, 4096, 0600 | IPC_CREAT), shm.id());
  EXPECT_ERRNO(shmget(key, 4096, 0600 | IPC_CREAT | IPC_EXCL), EEXIST);
  EXPECT_ERRNO(shmget(key, 4097, 0600), EINVAL);
  EXPECT_EQ(shm.Stat().shm_perm.__key, key);
  Shm other(4096, 0600, IPC_PRIVATE);
  EXPECT_NE(other.id(), shm.id());
}

TEST(Shm, SizesOutsideTheLimitsFailWithEinval) {
  EXPECT_ERRNO(shmget(IPC_PRIVATE, 0, 0600 | IPC_CREAT), EINVAL);
  EXPECT_ERRNO(shmget(IPC_PRIVATE, ~size_t{0}, 0600 | IPC_CREAT), EINVAL);
}

TEST(Shm, AttachErrors) {
  Shm shm;
  EXPECT_ERRNO(reinterpret_cast<intptr_t>(shmat(-1, nullptr, 0)), EINVAL);
  EXPECT_ERRNO(reinterpret_cast<intptr_t>(shmat(0x7ffffff0, nullptr, 0)), EINVAL);
  char* p = shm.Attach();
  EXPECT_ERRNO(reinterpret_cast<intptr_t>(shmat(shm.id(), p + 1, 0)), EINVAL);
  EXPECT_ERRNO(reinterpret_cast<intptr_t>(shmat(shm.id(), p, 0)), EINVAL);
  EXPECT_ERRNO(reinterpret_cast<intptr_t>(shmat(shm.id(), nullptr, SHM_REMAP)), EINVAL);
}

TEST(Shm, AttachesWhereAsked) {
  Shm shm;
  char* free_space = static_cast<char*>(mmap(nullptr, 16384, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_OK(munmap(free_space, 16384));
  EXPECT_EQ(shm.Attach(free_space), free_space);
  EXPECT_OK(shmdt(free_space));
  EXPECT_EQ(shm.Attach(free_space + 77, SHM_RND), free_space);
  free_space[0] = 'x';
  Shm other;
  EXPECT_EQ(other.Attach(free_space, SHM_REMAP), free_space);
  EXPECT_EQ(free_space[0], 0);
  EXPECT_EQ(shm.Stat().shm_nattch, 0u);
}

TEST(Shm, ReadOnlyAttachmentsCannotBeWritten) {
  Shm shm;
  char* p = shm.Attach(nullptr, SHM_RDONLY);
  int status = RunChild([&] {
    *const_cast<volatile char*>(p) = 1;
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  EXPECT_ERRNO(mprotect(p, 4096, PROT_READ | PROT_WRITE), EACCES);
}

TEST(Shm, DetachErrors) {
  Shm shm;
  char* p = shm.Attach();
  EXPECT_ERRNO(shmdt(p + 1), EINVAL);
  EXPECT_ERRNO(shmdt(p + 4096), EINVAL);
  EXPECT_OK(shmdt(p));
  EXPECT_ERRNO(shmdt(p), EINVAL);
  void* anonymous = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_ERRNO(shmdt(anonymous), EINVAL);
}

TEST(Shm, DetachTakesWhatMunmapHasLeft) {
  Shm shm(12288);
  char* p = shm.Attach();
  p[0] = p[8192] = 'x';
  ASSERT_OK(munmap(p + 4096, 4096));
  ASSERT_OK(shmdt(p));
  EXPECT_EQ(shm.Stat().shm_nattch, 0u);
  unsigned char vec;
  EXPECT_ERRNO(mincore(p, 4096, &vec), ENOMEM);
  EXPECT_ERRNO(mincore(p + 8192, 4096, &vec), ENOMEM);
}

TEST(Shm, RemovedSegmentsLiveUntilTheLastDetach) {
  const key_t key = UniqueKey();
  Shm shm(4096, 0600, key);
  char* p = shm.Attach();
  p[0] = 'x';
  ASSERT_OK(shmctl(shm.id(), IPC_RMID, nullptr));
  EXPECT_NE(shm.Stat().shm_perm.mode & SHM_DEST, 0);
  EXPECT_EQ(shm.Stat().shm_perm.__key, IPC_PRIVATE);
  EXPECT_ERRNO(shmget(key, 4096, 0600), ENOENT);
  char* again = shm.Attach();  // only on Linux
  EXPECT_EQ(again[0], 'x');
  EXPECT_OK(shmdt(p));
  EXPECT_OK(shmdt(again));
  shmid_ds ds;
  EXPECT_THAT(shmctl(shm.id(), IPC_STAT, &ds), SaysItIsGone());
  EXPECT_THAT(reinterpret_cast<intptr_t>(shmat(shm.id(), nullptr, 0)), SaysItIsGone());
}

TEST(Shm, PermissionsAreChecked) {
  const key_t key = UniqueKey();
  Shm shm(4096, 0644, key);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(shmget(key, 4096, 0200), EACCES);
              EXPECT_RETURNS(shmget(key, 4096, 0400), shm.id());
              EXPECT_ERRNO(reinterpret_cast<intptr_t>(shmat(shm.id(), nullptr, 0)), EACCES);
              EXPECT_OK(reinterpret_cast<intptr_t>(shmat(shm.id(), nullptr, SHM_RDONLY)));
              shmid_ds ds = shm.Stat();
              EXPECT_ERRNO(shmctl(shm.id(), IPC_SET, &ds), EPERM);
              EXPECT_ERRNO(shmctl(shm.id(), IPC_RMID, nullptr), EPERM);
            }),
            0);
  shmid_ds ds = shm.Stat();
  ds.shm_perm.mode = 0600;
  ASSERT_OK(shmctl(shm.id(), IPC_SET, &ds));
  EXPECT_EQ(RunAsNobody([&] {
              shmid_ds mine;
              EXPECT_ERRNO(shmctl(shm.id(), IPC_STAT, &mine), EACCES);
              EXPECT_ERRNO(shmget(key, 0, 0400), EACCES);
            }),
            0);
}

TEST(Shm, SetGivesItAway) {
  Shm shm(4096, 0600);
  shmid_ds ds = shm.Stat();
  ds.shm_perm.uid = kNobody;
  ds.shm_perm.gid = kNobody;
  ds.shm_perm.mode = 0400;
  ASSERT_OK(shmctl(shm.id(), IPC_SET, &ds));
  EXPECT_EQ(RunAsNobody([&] {
              shmid_ds mine = shm.Stat();
              EXPECT_EQ(mine.shm_perm.uid, kNobody);
              EXPECT_EQ(mine.shm_perm.cuid, 0u);
              mine.shm_perm.mode = 0600;
              EXPECT_OK(shmctl(shm.id(), IPC_SET, &mine));
              EXPECT_OK(reinterpret_cast<intptr_t>(shmat(shm.id(), nullptr, 0)));
            }),
            0);
}

TEST(Shm, ControlErrors) {
  Shm shm;
  shmid_ds ds;
  EXPECT_ERRNO(shmctl(-1, IPC_STAT, &ds), EINVAL);
  EXPECT_ERRNO(shmctl(shm.id(), 9999, &ds), EINVAL);
  EXPECT_ERRNO(syscall(SYS_shmctl, shm.id(), IPC_STAT, 8L), EFAULT);
  EXPECT_ERRNO(syscall(SYS_shmctl, shm.id(), IPC_SET, 8L), EFAULT);
}

TEST(Shm, InfoTellsTheLimits) {
  Shm shm;
  shminfo limits{};
  ASSERT_OK(shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)));
  EXPECT_GT(limits.shmmax, 0u);
  EXPECT_EQ(limits.shmmin, 1u);
  EXPECT_GT(limits.shmmni, 0u);
  shm_info info{};
  int highest = shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  ASSERT_OK(highest);
  EXPECT_GE(info.used_ids, 1);
  EXPECT_GE(info.shm_tot, 2u);
  bool found = false;
  for (int i = 0; i <= highest; i++) {
    shmid_ds ds;
    found = found || shmctl(i, SHM_STAT, &ds) == shm.id();
  }
  EXPECT_TRUE(found);
}

TEST(Shm, LockIsAccepted) {
  Shm shm;
  EXPECT_OK(shmctl(shm.id(), SHM_LOCK, nullptr));
  EXPECT_OK(shmctl(shm.id(), SHM_UNLOCK, nullptr));
}

// Semaphores ----------------------------------------------------------------------------------------------------------

TEST(Sem, KeysName) {
  const key_t key = UniqueKey();
  EXPECT_ERRNO(semget(key, 1, 0600), ENOENT);
  Sem sem(2, 0600, key);
  EXPECT_RETURNS(semget(key, 2, 0600), sem.id());
  EXPECT_RETURNS(semget(key, 0, 0), sem.id());
  EXPECT_ERRNO(semget(key, 2, 0600 | IPC_CREAT | IPC_EXCL), EEXIST);
  EXPECT_ERRNO(semget(key, 3, 0600), EINVAL);
}

TEST(Sem, CountsOutsideTheLimitsFailWithEinval) {
  EXPECT_ERRNO(semget(IPC_PRIVATE, 0, 0600 | IPC_CREAT), EINVAL);
  EXPECT_ERRNO(semget(IPC_PRIVATE, -1, 0600 | IPC_CREAT), EINVAL);
  EXPECT_ERRNO(semget(IPC_PRIVATE, 1000000, 0600 | IPC_CREAT), EINVAL);
}

TEST(Sem, ValuesAreSetAndRead) {
  Sem sem(3);
  EXPECT_EQ(sem.Get(), 0);
  sem.Set(7, 1);
  EXPECT_EQ(sem.Get(1), 7);
  EXPECT_EQ(sem.Get(1, GETPID), getpid());
  unsigned short values[3] = {1, 2, 3};
  EXPECT_OK(semctl(sem.id(), 0, SETALL, values));
  std::fill_n(values, 3, 0);
  EXPECT_OK(semctl(sem.id(), 0, GETALL, values));
  EXPECT_EQ(values[2], 3);
}

TEST(Sem, StatTellsUse) {
  time_t before = time(nullptr) - 1;
  Sem sem(3, 0640);
  semid_ds ds{};
  ASSERT_OK(semctl(sem.id(), 0, IPC_STAT, &ds));
  EXPECT_EQ(ds.sem_nsems, 3u);
  EXPECT_EQ(ds.sem_otime, 0);
  EXPECT_GE(ds.sem_ctime, before);
  EXPECT_EQ(ds.sem_perm.mode & 0777, 0640);
  ASSERT_OK(sem.Op(1));
  ASSERT_OK(semctl(sem.id(), 0, IPC_STAT, &ds));
  EXPECT_GE(ds.sem_otime, before);
}

TEST(Sem, ControlErrors) {
  Sem sem(2);
  semid_ds ds;
  EXPECT_ERRNO(semctl(-1, 0, GETVAL), EINVAL);
  EXPECT_ERRNO(semctl(sem.id(), 2, GETVAL), EINVAL);
  EXPECT_ERRNO(semctl(sem.id(), -1, GETVAL), EINVAL);
  EXPECT_ERRNO(semctl(sem.id(), 0, 9999), EINVAL);
  EXPECT_ERRNO(semctl(sem.id(), 0, SETVAL, -1), ERANGE);
  EXPECT_ERRNO(semctl(sem.id(), 0, SETVAL, 32768), ERANGE);
  EXPECT_ERRNO(semctl(sem.id(), 2, SETVAL, 1), EINVAL);
  unsigned short values[2] = {1, 32768};
  EXPECT_ERRNO(semctl(sem.id(), 0, SETALL, values), ERANGE);
  EXPECT_ERRNO(semctl(sem.id(), 0, SETALL, 8L), EFAULT);
  EXPECT_ERRNO(semctl(sem.id(), 0, GETALL, 8L), EFAULT);
  EXPECT_ERRNO(semctl(sem.id(), 0, IPC_STAT, 8L), EFAULT);
  EXPECT_ERRNO(semctl(sem.id(), 0, IPC_SET, 8L), EFAULT);
  ASSERT_OK(semctl(sem.id(), 0, IPC_RMID));
  EXPECT_THAT(semctl(sem.id(), 0, IPC_STAT, &ds), SaysItIsGone());
  EXPECT_THAT(sem.Op(1), SaysItIsGone());
}

TEST(Sem, PermissionsAreChecked) {
  const key_t key = UniqueKey();
  Sem sem(1, 0644, key);
  sem.Set(1);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(semget(key, 1, 0200), EACCES);
              EXPECT_RETURNS(sem.Get(), 1);
              EXPECT_ERRNO(sem.Op(1), EACCES);
              EXPECT_ERRNO(sem.Op(0, IPC_NOWAIT), EAGAIN);  // looking needs no more than reading
              EXPECT_ERRNO(semctl(sem.id(), 0, SETVAL, 1), EACCES);
              unsigned short values[1] = {1};
              EXPECT_ERRNO(semctl(sem.id(), 0, SETALL, values), EACCES);
              semid_ds ds;
              EXPECT_OK(semctl(sem.id(), 0, IPC_STAT, &ds));
              EXPECT_ERRNO(semctl(sem.id(), 0, IPC_SET, &ds), EPERM);
              EXPECT_ERRNO(semctl(sem.id(), 0, IPC_RMID), EPERM);
            }),
            0);
  semid_ds ds;
  ASSERT_OK(semctl(sem.id(), 0, IPC_STAT, &ds));
  ds.sem_perm.mode = 0600;
  ASSERT_OK(semctl(sem.id(), 0, IPC_SET, &ds));
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(sem.Get(), EACCES);
              EXPECT_ERRNO(semctl(sem.id(), 0, IPC_STAT, &ds), EACCES);
              EXPECT_ERRNO(sem.Op(0, IPC_NOWAIT), EACCES);
            }),
            0);
}

TEST(Sem, InfoTellsTheLimits) {
  Sem sem(2);
  seminfo info{};
  ASSERT_OK(semctl(0, 0, IPC_INFO, &info));
  EXPECT_EQ(info.semvmx, 32767);
  EXPECT_GT(info.semopm, 0);
  int highest = semctl(0, 0, SEM_INFO, &info);
  ASSERT_OK(highest);
  EXPECT_GE(info.semusz, 1);
  EXPECT_GE(info.semaem, 2);
  bool found = false;
  for (int i = 0; i <= highest; i++) {
    semid_ds ds;
    found = found || semctl(i, 0, SEM_STAT, &ds) == sem.id();
  }
  EXPECT_TRUE(found);
}

TEST(Semop, ChangesValues) {
  Sem sem;
  EXPECT_OK(sem.Op(5));
  EXPECT_OK(sem.Op(-3));
  EXPECT_EQ(sem.Get(), 2);
  EXPECT_OK(sem.Op(-2));
  EXPECT_OK(sem.Op(0));
}

TEST(Semop, AllOrNothing) {
  Sem sem(2);
  EXPECT_ERRNO(sem.Op({{0, 4, 0}, {1, -1, IPC_NOWAIT}}), EAGAIN);
  EXPECT_EQ(sem.Get(0), 0);
  // In their order.
  EXPECT_OK(sem.Op({{0, 2, 0}, {0, -1, IPC_NOWAIT}, {1, 0, IPC_NOWAIT}, {1, 3, 0}}));
  EXPECT_EQ(sem.Get(0), 1);
  EXPECT_EQ(sem.Get(1), 3);
  EXPECT_ERRNO(sem.Op({{0, -1, 0}, {0, -1, IPC_NOWAIT}, {0, 5, 0}}), EAGAIN);
  EXPECT_EQ(sem.Get(0), 1);
}

TEST(Semop, Errors) {
  Sem sem;
  sembuf op{0, 1, 0};
  EXPECT_ERRNO(semop(sem.id(), &op, 0), EINVAL);
  EXPECT_ERRNO(semop(-1, &op, 1), EINVAL);
  EXPECT_ERRNO(semop(sem.id(), &op, 100000), E2BIG);
  EXPECT_ERRNO(syscall(SYS_semop, sem.id(), 8L, 1), EFAULT);
  EXPECT_ERRNO(sem.Op({{1, 1, 0}}), EFBIG);
  EXPECT_ERRNO(sem.Op(0, IPC_NOWAIT) == 0 ? sem.Op(-1, IPC_NOWAIT) : 0, EAGAIN);
  sem.Set(32767);
  EXPECT_ERRNO(sem.Op(1), ERANGE);
  EXPECT_ERRNO(sem.Op(0, IPC_NOWAIT), EAGAIN);
  EXPECT_EQ(sem.Get(), 32767);
}

TEST(Semop, WaitsForTheValue) {
  Sem sem;
  pid_t child = Spawn([&] {
    EXPECT_OK(sem.Op(-2));
    return 0;
  });
  WaitUntil([&] { return sem.Get(0, GETNCNT) == 1; });
  EXPECT_EQ(sem.Get(0, GETZCNT), 0);
  EXPECT_OK(sem.Op(1));
  EXPECT_EQ(sem.Get(0, GETNCNT), 1);
  EXPECT_OK(sem.Op(1));
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_EQ(sem.Get(), 0);
  EXPECT_EQ(sem.Get(0, GETNCNT), 0);
  EXPECT_EQ(sem.Get(0, GETPID), child);
}

TEST(Semop, WaitsForZero) {
  Sem sem;
  sem.Set(1);
  pid_t child = Spawn([&] {
    EXPECT_OK(sem.Op(0));
    return 0;
  });
  WaitUntil([&] { return sem.Get(0, GETZCNT) == 1; });
  EXPECT_EQ(sem.Get(0, GETNCNT), 0);
  EXPECT_OK(sem.Op(-1));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(Semop, SettingAValueWakes) {
  Sem sem(2);
  pid_t child = Spawn([&] {
    EXPECT_OK(sem.Op({{0, -1, 0}, {1, -1, 0}}));
    return 0;
  });
  WaitUntil([&] { return sem.Get(0, GETNCNT) == 1; });
  sem.Set(1, 0);
  WaitUntil([&] { return sem.Get(1, GETNCNT) == 1; });
  unsigned short values[2] = {1, 1};
  EXPECT_OK(semctl(sem.id(), 0, SETALL, values));
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_EQ(sem.Get(0), 0);
  EXPECT_EQ(sem.Get(1), 0);
}

TEST(Semop, RemovalFailsWaitersWithEidrm) {
  Sem sem;
  pid_t child = Spawn([&] {
    EXPECT_ERRNO(sem.Op(-1), EIDRM);
    return 0;
  });
  WaitUntil([&] { return sem.Get(0, GETNCNT) == 1; });
  ASSERT_OK(semctl(sem.id(), 0, IPC_RMID));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(Semop, SignalsInterruptEvenWithSaRestart) {
  Sem sem;
  for (int flags : {0, SA_RESTART}) {
    struct sigaction sa{};
    sa.sa_handler = [](int) {};
    sa.sa_flags = flags;
    ASSERT_OK(sigaction(SIGALRM, &sa, nullptr));
    itimerval t{{0, 0}, {0, 20000}};
    ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
    EXPECT_ERRNO(sem.Op(-1), EINTR);
    EXPECT_EQ(sem.Get(0, GETNCNT), 0);
  }
}

TEST(Semtimedop, TimesOutWithEagain) {
  Sem sem;
  sembuf op{0, -1, 0};
  timespec t{0, 30000000};
  const int64_t start = NowMs();
  EXPECT_ERRNO(semtimedop(sem.id(), &op, 1, &t), EAGAIN);
  EXPECT_GE(NowMs() - start, 29);
  t = {};
  EXPECT_ERRNO(semtimedop(sem.id(), &op, 1, &t), EAGAIN);
  sem.Set(1);
  t = {10, 0};
  EXPECT_OK(semtimedop(sem.id(), &op, 1, &t));
  sem.Set(1);
  EXPECT_OK(semtimedop(sem.id(), &op, 1, nullptr));
}

TEST(Semtimedop, Errors) {
  Sem sem;
  sembuf op{0, -1, 0};
  for (timespec t : {timespec{0, 1000000000}, timespec{0, -1}, timespec{-1, 0}}) {
    EXPECT_ERRNO(semtimedop(sem.id(), &op, 1, &t), EINVAL);
  }
  EXPECT_ERRNO(syscall(SYS_semtimedop, sem.id(), &op, 1, 8L), EFAULT);
}

TEST(SemUndo, ExitTakesBackWhatTheProcessDid) {
  Sem sem(2);
  sem.Set(5, 1);
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(sem.Op({{0, 3, SEM_UNDO}, {1, -2, SEM_UNDO}}));
              EXPECT_OK(sem.Op({{0, 4, 0}}));
              EXPECT_EQ(sem.Get(0), 7);
              EXPECT_EQ(sem.Get(1), 3);
              return 0;
            }),
            0);
  EXPECT_EQ(sem.Get(0), 4);
  EXPECT_EQ(sem.Get(1), 5);
}

TEST(SemUndo, DeathBySignalReleasesALock) {
  Sem sem;
  sem.Set(1);
  pid_t holder = Spawn([&] {
    EXPECT_OK(sem.Op(-1, SEM_UNDO));
    pause();
    return 0;
  });
  WaitUntil([&] { return sem.Get() == 0; });
  pid_t waiter = Spawn([&] {
    EXPECT_OK(sem.Op(-1));
    return 0;
  });
  WaitUntil([&] { return sem.Get(0, GETNCNT) == 1; });
  ASSERT_OK(kill(holder, SIGKILL));
  EXPECT_EQ(WaitFor(waiter), 0);
  WaitFor(holder);
}

// Each of two threads may find the other not yet gone.
TEST(SemUndo, TheLastOfThreadsThatEndTogetherTakesItBack) {
  Sem sem;
  for (int i = 0; i < 100; i++) {
    sem.Set(1);
    EXPECT_EQ(RunChild([&] {
                EXPECT_OK(sem.Op(-1, SEM_UNDO));
                std::atomic<int> ready{0};
                auto end = [&ready] {
                  for (ready++; ready < 2;) sched_yield();
                  syscall(SYS_exit, 0);
                };
                std::thread(end).detach();
                end();
                return 1;
              }),
              0);
    ASSERT_EQ(sem.Get(), 1) << "turn " << i;
  }
}

TEST(SemUndo, ChildrenDoNotInheritAdjustments) {
  Sem sem;
  ASSERT_OK(sem.Op(2, SEM_UNDO));
  EXPECT_EQ(RunChild([] { return 0; }), 0);
  EXPECT_EQ(sem.Get(), 2);
}

TEST(SemUndo, ExecKeepsAdjustments) {
  Sem sem;
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(sem.Op(2, SEM_UNDO));
              execl("/bin/true", "true", nullptr);
              return 1;
            }),
            0);
  EXPECT_EQ(sem.Get(), 0);
}

TEST(SemUndo, SettingAValueVoidsAdjustments) {
  Sem sem;
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(sem.Op(2, SEM_UNDO));
              sem.Set(9);
              return 0;
            }),
            0);
  EXPECT_EQ(sem.Get(), 9);
}

TEST(SemUndo, ValuesStopAtZero) {
  Sem sem;
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(sem.Op(3, SEM_UNDO));
              EXPECT_OK(sem.Op(-2));
              return 0;
            }),
            0);
  EXPECT_EQ(sem.Get(), 0);
}

}  // namespace
}  // namespace redoubt::testing

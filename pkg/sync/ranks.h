// The order of all locks: a thread may take a mutex only while every mutex it holds has a smaller rank (an equal one
// only where the class says how equals are ordered, and then through MutexLockNested). Checked at run time unless
// NDEBUG is defined. A new lock is a new line here, outermost first; leave gaps.
#ifndef REDOUBT_PKG_SYNC_RANKS_H_
#define REDOUBT_PKG_SYNC_RANKS_H_

namespace redoubt::sync {

enum class Rank : int {
  // kernel
  kKernel = 100,
  kTaskTree = 110,  // PidNamespace/Kernel: the set of tasks, parents, children, sessions
  kSignal = 120,    // ThreadGroup: pending signals, actions, group stop
  kTask = 130,      // Task: what other tasks read
  kFdTable = 140,
  kFsContext = 145,
  // file systems
  kMountNamespace = 200,
  kDentryTree = 210,      // names and parents of all dentries
  kDentryChildren = 212,  // one directory's cached children
  kDentryCache = 214,     // the list of recently used dentries
  kInode = 220,
  kFileLocks = 225,      // advisory locks of one file
  kFileLockGraph = 226,  // who waits for whom, of all files
  kFileOffset = 230,
  kFileSystem = 240,
  // descriptors
  kEpollRegistry = 255,  // which epolls watch which description; every change of an interest list
  kEpoll = 260,
  kInFlight = 265,  // descriptors on their way through AF_UNIX sockets
  kSocket = 270,    // equals nest in the order of their addresses
  kPipe = 280,
  kTty = 285,
  kTimer = 290,
  kIpc = 295,  // System V objects: tables and semaphore sets
  // memory
  kMappings = 300,      // MemoryManager: VMAs
  kMappable = 310,      // an inode's page cache and its mappings
  kActivePages = 320,   // MemoryManager: pages
  kSlots = 325,         // platform: which context has which thread of a stub
  kAddressSpace = 330,  // platform
  kMemoryFile = 340,
  // netstack (the order among them is explained in pkg/netstack/stack/stack.h)
  kNetEndpoint = 350,   // one transport endpoint
  kNetDemux = 355,      // which endpoint takes which packets
  kNetPorts = 360,      // which local ports are taken
  kNetStack = 362,      // the list of interfaces, protocols, packet sockets
  kNetGroups = 364,     // multicast membership of one interface
  kNetInterface = 366,  // addresses and flags of one interface
  kNetLocalAddresses = 368,
  kNetRoutes = 370,
  kNetNeighbours = 372,  // one interface's neighbour table
  kNetReassembly = 374,
  kNetPathMtu = 376,
  kNetLink = 380,    // a link endpoint's queues
  kNetTimers = 390,  // the timer queue
  kNetPool = 395,    // free lists of packets and chunks
  // who watches files (inotify(7)): told under nearly everything
  kWatches = 396,  // watches of some inodes
  kInotify = 398,  // an instance's queue
  // wake-ups: taken under nearly everything
  kFutex = 400,
  kHostPoller = 405,   // host descriptors watched; held while their queues are notified
  kWaiterQueue = 410,  // equals nest from a watched file to the epoll that watches it; circles are refused
  kEpollReady = 420,
  kLeaf = 1000,         // takes nothing but a wake-up while held
  kPidNumbers = 1005,   // the numbers of a PID namespace: given back wherever the last who knew one ends
  kFiberMutex = 1010,   // fiber::Mutex's own state
  kExecutor = 1020,     // the run queue: Unpark is legal under every lock
  kEventSource = 1030,  // what an EventSource needs in SetAsleep
};

}  // namespace redoubt::sync

#endif  // REDOUBT_PKG_SYNC_RANKS_H_

// Clang's thread-safety attributes (clang.llvm.org/docs/ThreadSafetyAnalysis.html); nothing under GCC.
#ifndef REDOUBT_PKG_SYNC_ANNOTATIONS_H_
#define REDOUBT_PKG_SYNC_ANNOTATIONS_H_

#if defined(__clang__)
#define REDOUBT_TSA(x) __attribute__((x))
#else
#define REDOUBT_TSA(x)
#endif

#define CAPABILITY(x) REDOUBT_TSA(capability(x))
#define SCOPED_CAPABILITY REDOUBT_TSA(scoped_lockable)
#define GUARDED_BY(x) REDOUBT_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) REDOUBT_TSA(pt_guarded_by(x))
#define REQUIRES(...) REDOUBT_TSA(requires_capability(__VA_ARGS__))
#define ACQUIRE(...) REDOUBT_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) REDOUBT_TSA(release_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) REDOUBT_TSA(try_acquire_capability(__VA_ARGS__))
#define EXCLUDES(...) REDOUBT_TSA(locks_excluded(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) REDOUBT_TSA(assert_capability(x))
#define RETURN_CAPABILITY(x) REDOUBT_TSA(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS REDOUBT_TSA(no_thread_safety_analysis)

#endif  // REDOUBT_PKG_SYNC_ANNOTATIONS_H_

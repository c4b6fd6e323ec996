// The descriptors that boot, the Sentry's process, is started with. stdin, stdout and stderr are its own (/dev/null
// or a log): the guest's come with the request that makes a container.
#ifndef REDOUBT_RUNSC_SANDBOX_LAYOUT_H_
#define REDOUBT_RUNSC_SANDBOX_LAYOUT_H_

namespace redoubt::sandbox {

inline constexpr int kOptionsFd = 3;     // a file: specutils::SerializeOptions
inline constexpr int kLogFd = 4;         // absent: errors to stderr
inline constexpr int kListenFd = 5;      // listening SOCK_SEQPACKET, control::Connection on it; absent: nobody may ask
inline constexpr int kConnectionFd = 6;  // control::Connection with the request for the first container

inline constexpr int kParentFd = 7;  // pidfd of the process to die with
inline constexpr int kKvmFd = 8;     // /dev/kvm, if SandboxOptions::kvm_device is 0
inline constexpr int kFirstClosedFd = 9;

// The gofer's, beside stdin, stdout and stderr: a file for one line about why it cannot start.
inline constexpr int kGoferReasonFd = 3;

// Exit codes of failures of our own (docker-run(1), "Exit Status").
inline constexpr int kSetupFailed = 125;
inline constexpr int kNotExecutable = 126;
inline constexpr int kNotFound = 127;

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_LAYOUT_H_

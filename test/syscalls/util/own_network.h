#ifndef REDOUBT_TEST_SYSCALLS_UTIL_OWN_NETWORK_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_OWN_NETWORK_H_

namespace redoubt::testing {

// From now on this process is in a network namespace of its own whose loopback is up, where it may make one: natively.
// A sandbox has one network, whose loopback is up.
void EnterOwnNetwork();

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_OWN_NETWORK_H_

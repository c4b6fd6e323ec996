// The host's random numbers.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_DEV_RANDOM_UNSAFE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_DEV_RANDOM_UNSAFE_H_

#include <cstddef>
#include <span>

namespace redoubt::dev {

void FillRandom(std::span<std::byte> out);

}  // namespace redoubt::dev

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_DEV_RANDOM_UNSAFE_H_

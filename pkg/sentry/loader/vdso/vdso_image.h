// The bytes of the guest's vDSO, an ELF shared object built along with the Sentry.
#ifndef REDOUBT_PKG_SENTRY_LOADER_VDSO_VDSO_IMAGE_H_
#define REDOUBT_PKG_SENTRY_LOADER_VDSO_VDSO_IMAGE_H_

#include <cstddef>
#include <span>

namespace redoubt::loader {

// Loads at any address as it stands: file offsets are addresses.
std::span<const std::byte> VdsoImage();

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_VDSO_VDSO_IMAGE_H_

// What opening /proc/PID/ns/KIND gives: namespaces(7).
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_PROC_NAMESPACE_FILE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_PROC_NAMESPACE_FILE_H_

#include <fcntl.h>

#include <string>
#include <string_view>
#include <utility>

#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::proc {

// Names a namespace to setns(2), and keeps it alive.
class NamespaceFile final : public vfs::FileDescription {
 public:
  NamespaceFile(vfs::Path path, std::string_view kind, RefPtr<RefCounted> object)
      : FileDescription(std::move(path), O_RDONLY), kind_(kind), object_(std::move(object)) {}

  std::string_view kind() const { return kind_; }  // "pid", "mnt", ...
  // What KernelView::Namespace gave; null for a kind of which there is only one.
  const RefPtr<RefCounted>& object() const { return object_; }

  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<size_t> PRead(IoSequence&, uint64_t, vfs::IoFlags) override { return Err(EINVAL); }

 private:
  const std::string kind_;
  const RefPtr<RefCounted> object_;
};

}  // namespace redoubt::proc

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_PROC_NAMESPACE_FILE_H_

// How the CLI hands specifications to the Sentry. MessagePack and not text: arguments are bytes and need not be UTF-8.
#ifndef REDOUBT_RUNSC_SPECUTILS_CODEC_H_
#define REDOUBT_RUNSC_SPECUTILS_CODEC_H_

#include <string>

#include "runsc/specutils/spec.h"

namespace redoubt::specutils {

std::string SerializeOptions(const SandboxOptions& options);
std::string SerializeSpec(const Spec& spec);
std::string SerializeProcess(const Process& process);
// An error for what the above have not made.
Expected<SandboxOptions> ParseOptions(const std::string& bytes);
Expected<Spec> ParseSpec(const std::string& bytes);
Expected<Process> ParseProcess(const std::string& bytes);

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_CODEC_H_

// Registers this binary as a runtime with the engines of a host, and takes that back.
//
// Docker: "runtimes" in daemon.json. containerd: a runtime of the CRI plugin in config.toml, between two lines that
// mark what is ours. podman: a file of our own in containers.conf.d. A file that was there is replaced by renaming,
// with its mode kept and the old text beside it as FILE.before-NAME; a file that cannot be read as what it should be is
// left alone.
#ifndef REDOUBT_RUNSC_INSTALL_INSTALL_H_
#define REDOUBT_RUNSC_INSTALL_INSTALL_H_

#include <string>
#include <vector>

#include "runsc/specutils/spec.h"

namespace redoubt::install {

using specutils::Expected;

enum class Engine { kDocker, kContainerd, kPodman };
const char* Name(Engine engine);

struct Options {
  std::string etc = "/etc";            // where the engines' files are
  std::string name = "runsc";          // of the runtime
  std::string binary;                  // absolute path
  std::vector<std::string> arguments;  // flags of runsc that engines are to pass
};

// Those whose program is in PATH or whose folder below `etc` is there.
std::vector<Engine> Found(const Options& options);

// What was done, for a person: the file, and what to do for the engine to see it. The error names the file.
Expected<std::string> Install(Engine engine, const Options& options);
Expected<std::string> Uninstall(Engine engine, const Options& options);

// The files' new texts, from their old ones (empty: there is none).
Expected<std::string> DockerWith(const std::string& text, const Options& options);
Expected<std::string> DockerWithout(const std::string& text, const Options& options);
Expected<std::string> ContainerdWith(const std::string& text, const Options& options);
Expected<std::string> ContainerdWithout(const std::string& text, const Options& options);
std::string PodmanText(const Options& options);

}  // namespace redoubt::install

#endif  // REDOUBT_RUNSC_INSTALL_INSTALL_H_

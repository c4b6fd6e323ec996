// What is said of a word of the command line that nobody knows.
#ifndef REDOUBT_RUNSC_CMD_UNKNOWN_H_
#define REDOUBT_RUNSC_CMD_UNKNOWN_H_

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace redoubt::cmd {

// With the nearest known one, if one is near. `sub`: the command it was given to, or `app` itself.
std::string UnknownWord(const std::string& word, const CLI::App& app, const CLI::App& sub);
std::vector<std::string> FlagNames(const CLI::App& app);

}  // namespace redoubt::cmd

#endif  // REDOUBT_RUNSC_CMD_UNKNOWN_H_

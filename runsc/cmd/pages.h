// Texts made from the table of commands: completions and the manual page.
#ifndef REDOUBT_RUNSC_CMD_PAGES_H_
#define REDOUBT_RUNSC_CMD_PAGES_H_

#include <string>

namespace CLI {
class App;
}

namespace redoubt::cmd {

std::string BashCompletion(const CLI::App& app);
std::string ZshCompletion(const CLI::App& app);
// In man(7)'s language.
std::string ManualPage(const CLI::App& app);

}  // namespace redoubt::cmd

#endif  // REDOUBT_RUNSC_CMD_PAGES_H_

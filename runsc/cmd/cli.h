// runsc's command line.
#ifndef REDOUBT_RUNSC_CMD_CLI_H_
#define REDOUBT_RUNSC_CMD_CLI_H_

namespace redoubt::cmd {

// The exit code of the whole program.
int Main(int argc, char** argv);

}  // namespace redoubt::cmd

#endif  // REDOUBT_RUNSC_CMD_CLI_H_

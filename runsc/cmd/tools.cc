// doctor, syscalls, install, uninstall, completion, man: what is told of this program and this host.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "pkg/sentry/syscalls/table.h"
#include "runsc/cmd/context.h"
#include "runsc/cmd/pages.h"
#include "runsc/doctor/doctor.h"
#include "runsc/install/install.h"

namespace redoubt::cmd {
namespace {

void AddDoctor(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("doctor", "try what works on this host; say why not, and what to do about it");
  command->footer("Exits with 1 if no platform works.");
  command->callback([&context] {
    context.action = [] {
      std::vector<doctor::Finding> findings = doctor::Examine();
      fmt::print("{}", doctor::Format(findings));
      return doctor::AnyPlatformWorks(findings) ? 0 : 1;
    };
  });
}

void AddSyscalls(CLI::App& app, Context& context) {
  auto missing = std::make_shared<bool>();
  CLI::App* command =
      app.add_subcommand("syscalls", "list the system calls of x86-64: number, name, whether it is there");
  command->add_flag("--missing", *missing, "only those that are not");
  command->callback([&context, missing] {
    context.action = [missing] {
      for (uint64_t n = 0; n < syscalls::kTableSize; n++) {
        const syscalls::Entry& e = syscalls::Lookup(n);
        if (e.name.empty() || (*missing && e.handler != nullptr)) continue;
        fmt::print("{:>4} {:<28} {}\n", n, e.name, e.handler != nullptr ? "yes" : "no");
      }
      return 0;
    };
  });
}

struct InstallArgs {
  install::Options options;
  std::vector<std::string> engines;
};

void AddInstallOptions(CLI::App& command, InstallArgs& args) {
  command.add_option("--name", args.options.name, "of the runtime")->capture_default_str();
  command.add_option("--etc", args.options.etc, "where the engines' files are")->capture_default_str();
  command.add_option("ENGINE", args.engines, "docker, containerd, podman (default: those that are here)")
      ->check(CLI::IsMember({"docker", "containerd", "podman"}));
}

int ForEngines(const Flags& flags, InstallArgs& args,
               specutils::Expected<std::string> (*what)(install::Engine, const install::Options&)) {
  char self[4096] = {};
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) <= 0) return Fail(flags, "/proc/self/exe cannot be read");
  args.options.binary = self;
  std::vector<install::Engine> engines;
  for (install::Engine e : {install::Engine::kDocker, install::Engine::kContainerd, install::Engine::kPodman}) {
    if (std::find(args.engines.begin(), args.engines.end(), install::Name(e)) != args.engines.end())
      engines.push_back(e);
  }
  if (args.engines.empty()) engines = install::Found(args.options);
  if (engines.empty()) return Fail(flags, "no engine was found here; name one: docker, containerd, podman");
  int code = 0;
  for (install::Engine e : engines) {
    specutils::Expected<std::string> done = what(e, args.options);
    if (done) {
      fmt::print("{}\n", *done);
    } else {
      code = Fail(flags, done.error());
    }
  }
  return code;
}

void AddInstall(CLI::App& app, Context& context) {
  auto args = std::make_shared<InstallArgs>();
  CLI::App* command = app.add_subcommand("install", "register this program as a runtime with the engines of this host");
  AddInstallOptions(*command, *args);
  command->add_option("--runtime-arg", args->options.arguments, "a flag that Docker is to pass; may be given again")
      ->allow_extra_args(false);
  command->callback([&context, args] {
    context.action = [&context, args] { return ForEngines(context.flags, *args, install::Install); };
  });
  auto undo = std::make_shared<InstallArgs>();
  CLI::App* uninstall = app.add_subcommand("uninstall", "take that back");
  AddInstallOptions(*uninstall, *undo);
  uninstall->callback([&context, undo] {
    context.action = [&context, undo] { return ForEngines(context.flags, *undo, install::Uninstall); };
  });
}

void AddPages(CLI::App& app, Context& context) {
  auto shell = std::make_shared<std::string>();
  CLI::App* completion =
      app.add_subcommand("completion", "print a script that completes command lines of this program");
  completion->add_option("SHELL", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  completion->footer("For bash: runsc completion bash > /etc/bash_completion.d/runsc");
  completion->callback([&app, &context, shell] {
    context.action = [&app, shell] {
      fmt::print("{}", *shell == "bash" ? BashCompletion(app) : ZshCompletion(app));
      return 0;
    };
  });
  CLI::App* man = app.add_subcommand("man", "print the manual page, for man(1)");
  man->footer("Read it with: runsc man | man -l -");
  man->callback([&app, &context] {
    context.action = [&app] {
      fmt::print("{}", ManualPage(app));
      return 0;
    };
  });
}

}  // namespace

void AddTools(CLI::App& app, Context& context) {
  AddDoctor(app, context);
  AddSyscalls(app, context);
  AddInstall(app, context);
  AddPages(app, context);
}

}  // namespace redoubt::cmd

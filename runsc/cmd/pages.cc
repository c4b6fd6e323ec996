#include "runsc/cmd/pages.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <vector>

#include "runsc/cmd/context.h"

namespace redoubt::cmd {
namespace {

std::vector<const CLI::App*> Commands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// "--bundle -b".
std::string Words(const CLI::App& app) {
  std::string words;
  for (const CLI::Option* o : app.get_options()) {
    for (const std::string& n : o->get_lnames()) words += (words.empty() ? "--" : " --") + n;
    for (const std::string& n : o->get_snames()) words += (words.empty() ? "-" : " -") + n;
  }
  return words;
}

bool TakesContainer(const CLI::App& app) {
  for (const CLI::Option* o : app.get_options()) {
    if (o->get_positional() && o->get_name(true) == "ID") return true;
  }
  return false;
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// A dash that a reader may copy, and no line that begins as a request does.
std::string Roff(std::string text) {
  text = Replaced(Replaced(std::move(text), "\\", "\\e"), "-", "\\-");
  if (text.starts_with('.') || text.starts_with('\'')) text = "\\&" + text;
  return text;
}

std::string OptionsPage(const CLI::App& app) {
  std::string page;
  for (const CLI::Option* o : app.get_options()) {
    std::string names;
    for (const std::string& n : o->get_snames()) names += (names.empty() ? "\\fB\\-" : ", \\fB\\-") + Roff(n) + "\\fR";
    for (const std::string& n : o->get_lnames())
      names += (names.empty() ? "\\fB\\-\\-" : ", \\fB\\-\\-") + Roff(n) + "\\fR";
    if (o->get_positional()) names = "\\fI" + Roff(o->get_name(true)) + "\\fR";
    if (!o->get_positional() && o->get_expected_max() > 0 && o->get_type_size_max() > 0) names += " \\fIVALUE\\fR";
    std::string text = o->get_description();
    if (!o->get_default_str().empty()) text += fmt::format(" (default: {})", o->get_default_str());
    if (!o->get_envname().empty()) text += fmt::format(" (environment: {})", o->get_envname());
    page += fmt::format(".TP\n{}\n{}\n", names, Roff(text));
  }
  return page;
}

}  // namespace

std::string BashCompletion(const CLI::App& app) {
  std::string commands, cases;
  for (const CLI::App* c : Commands(app)) {
    commands += (commands.empty() ? "" : " ") + c->get_name();
    cases += fmt::format("    {})\n      words=\"{}{}\" ;;\n", c->get_name(), Words(*c),
                         TakesContainer(*c) ? " $(runsc list -q 2>/dev/null)" : "");
  }
  return fmt::format(
      "# bash completion of runsc, made by `runsc completion bash`\n"
      "_runsc() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} command= words i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case \" {} \" in *\" ${{COMP_WORDS[i]}} \"*) command=${{COMP_WORDS[i]}}; break ;; esac\n"
      "  done\n"
      "  case $command in\n{}"
      "    *) words=\"{} {}\" ;;\n"
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "}}\n"
      "complete -o default -F _runsc runsc\n",
      commands, cases, commands, Words(app));
}

std::string ZshCompletion(const CLI::App& app) {
  return "#compdef runsc\n# zsh completion of runsc, made by `runsc completion zsh`\nautoload -U +X bashcompinit && "
         "bashcompinit\n" +
         BashCompletion(app);
}

std::string ManualPage(const CLI::App& app) {
  std::string page = fmt::format(
      ".TH RUNSC 8 \"\" \"Redoubt {}\" \"System Administration\"\n.SH NAME\nrunsc \\- {}\n.SH SYNOPSIS\n"
      ".B runsc\n[\\fIFLAGS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n.SH DESCRIPTION\n{}\nIt is an OCI runtime: "
      "engines "
      "(podman, containerd, Docker) drive it. By hand, \\fBrunsc do\\fR \\fICOMMAND\\fR runs a command in a sandbox.\n"
      ".SH FLAGS\nThey stand before the command.\n",
      kVersion, Roff("run programs on a Linux of their own, in user space"), Roff(app.get_description()));
  page += OptionsPage(app);
  page += ".SH COMMANDS\n";
  for (const CLI::App* c : Commands(app)) {
    page += fmt::format(".SS {}\n{}.\n", Roff(c->get_name()), Roff(c->get_description()));
    page += OptionsPage(*c);
    if (!c->get_footer().empty()) page += fmt::format(".PP\n{}\n", Roff(c->get_footer()));
  }
  page +=
      ".SH EXIT STATUS\n\\fBrun\\fR, \\fBdo\\fR and \\fBexec\\fR: the guest's; 128 + n if signal n has ended it; 125 "
      "if the "
      "sandbox could not be set up, 126 if the program cannot be executed, 127 if there is none. Others: 0, or 1 after "
      "a "
      "failure.\n.SH FILES\n.TP\n/run/runsc\nthe state of containers\n";
  return page;
}

}  // namespace redoubt::cmd

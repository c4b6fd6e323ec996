#include "runsc/cmd/unknown.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

namespace redoubt::cmd {
namespace {

// Levenshtein's distance.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row[b.size()];
}

std::string Nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(3, word.size() / 2);
  for (const std::string& k : known) {
    if (size_t d = Distance(word, k); d < best_distance) {
      best_distance = d;
      best = k;
    }
  }
  return best;
}

}  // namespace

std::vector<std::string> FlagNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* o : app.get_options()) {
    for (const std::string& n : o->get_lnames()) names.push_back("--" + n);
  }
  return names;
}

std::string UnknownWord(const std::string& word, const CLI::App& app, const CLI::App& sub) {
  if (word.starts_with('-')) {
    std::vector<std::string> names = FlagNames(sub);
    for (const std::string& n : FlagNames(app)) names.push_back(n);
    std::string name = word.substr(0, word.find('='));
    std::string nearest = Nearest(name, names);
    return fmt::format("unknown flag {}{}; see `runsc help {}`", name,
                       nearest.empty() ? "" : fmt::format(", did you mean {}?", nearest), sub.get_name());
  }
  std::vector<std::string> commands;
  for (const CLI::App* c : app.get_subcommands(nullptr)) commands.push_back(c->get_name());
  std::string nearest = Nearest(word, commands);
  return fmt::format("unknown command \"{}\"{}; see `runsc help`", word,
                     nearest.empty() ? "" : fmt::format(", did you mean \"{}\"?", nearest));
}

}  // namespace redoubt::cmd

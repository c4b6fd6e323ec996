// metrics.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <map>
#include <memory>

#include "runsc/cmd/context.h"

namespace redoubt::cmd {
namespace {

struct Known {
  const char* name;
  const char* type;
  const char* help;
};
// In the order in which they are printed. What the sandbox says beyond these is not repeated.
constexpr Known kKnown[] = {
    {"cpu_seconds_total", "counter", "Processor time of the container's processes, those that have ended included."},
    {"processes", "gauge", "Processes of the container."},
    {"threads", "gauge", "Threads of the container."},
    {"page_faults_total", "counter", "Page faults of the container's processes that are there now."},
    {"memory_bytes", "gauge", "Memory of all guests of the sandbox, page caches included."},
    {"memory_limit_bytes", "gauge", "Memory that the guests of the sandbox may use."},
    {"syscalls_total", "counter", "System calls made in the sandbox, by name."},
    {"syscalls_missing_total", "counter", "System calls made in the sandbox that are not implemented, by name."},
    {"gofer_messages_total", "counter", "Messages sent to the gofers of the sandbox."},
};

// What the sandbox has sent may be anything.
std::string Label(const std::string& text) {
  std::string out;
  for (char c : text) out += std::isalnum(static_cast<unsigned char>(c)) || c == '_' ? c : '_';
  return out;
}

}  // namespace

// Of the Prometheus text format: HELP, TYPE and samples, a metric after the other.
std::string PrometheusText(const std::string& id, const std::vector<control::Metric>& metrics) {
  std::string text;
  for (const Known& known : kKnown) {
    bool first = true;
    for (const control::Metric& m : metrics) {
      if (m.name != known.name) continue;
      if (first) {
        text += fmt::format("# HELP redoubt_{0} {1}\n# TYPE redoubt_{0} {2}\n", known.name, known.help, known.type);
      }
      first = false;
      text += fmt::format("redoubt_{}{{container=\"{}\"", known.name, id);
      if (!m.label.empty()) text += fmt::format(",{}=\"{}\"", Label(m.label), Label(m.label_value));
      text += fmt::format("}} {}\n", m.value);
    }
  }
  return text;
}

void AddMetrics(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("metrics", "print a container's counters in Prometheus' text format");
  auto id = std::make_shared<std::string>();
  command->add_option("ID", *id, "the container's name")->required();
  command->callback([&context, id] {
    context.action = [&context, id]() -> int {
      const Flags& flags = context.flags;
      return With(flags, [&](const auto& settings) {
        container::Outcome<std::vector<control::Metric>> metrics = container::Metrics(settings, *id);
        if (!metrics) return Fail(flags, metrics.error().text, metrics.error().code);
        fmt::print("{}", PrometheusText(*id, *metrics));
        return 0;
      });
    };
  });
}

}  // namespace redoubt::cmd

#include "runsc/control/protocol.h"

#include <utility>

#include "runsc/msgpack/json.h"

namespace redoubt::control {
namespace {

using msgpack::Json;
using msgpack::Pack;

template <typename T, typename F>
Result<T> Unpack(const std::string& bytes, F&& fill) {
  auto value = msgpack::Unpack<T>(bytes, std::forward<F>(fill));
  if (!value) return Err(EBADMSG);
  return *std::move(value);
}

}  // namespace

std::string Serialize(const Request& r) {
  return Pack(Json::array({static_cast<uint8_t>(r.method), r.container, r.pid, r.signal, r.all, r.keyboard, r.attach,
                           r.start, r.preserved, r.body, r.ignore_paused}));
}

Result<Request> ParseRequest(const std::string& bytes) {
  return Unpack<Request>(bytes, [](const Json& j, Request& r) {
    r.method = static_cast<Method>(j.at(0).get<uint8_t>());
    r.container = j.at(1).get<std::string>();
    r.pid = j.at(2);
    r.signal = j.at(3);
    r.all = j.at(4);
    r.keyboard = j.at(5);
    r.attach = j.at(6);
    r.start = j.at(7);
    r.preserved = j.at(8);
    r.body = j.at(9).get<std::string>();
    r.ignore_paused = j.at(10);
  });
}

std::string Serialize(const Reply& r) { return Pack(Json::array({r.error, r.code, r.pid, r.status, r.body})); }

Result<Reply> ParseReply(const std::string& bytes) {
  return Unpack<Reply>(bytes, [](const Json& j, Reply& r) {
    r.error = j.at(0).get<std::string>();
    r.code = j.at(1);
    r.pid = j.at(2);
    r.status = j.at(3);
    r.body = j.at(4).get<std::string>();
  });
}

std::string Serialize(const std::vector<ProcessInfo>& processes) {
  Json list = Json::array();
  for (const ProcessInfo& p : processes) {
    list.push_back(Json::array({p.pid, p.parent, p.uid, p.threads, static_cast<int>(p.state), p.cpu_ns, p.resident,
                                p.started_ns, p.command_line}));
  }
  return Pack(list);
}

Result<std::vector<ProcessInfo>> ParseProcesses(const std::string& bytes) {
  return Unpack<std::vector<ProcessInfo>>(bytes, [](const Json& list, std::vector<ProcessInfo>& out) {
    for (const Json& j : list) {
      ProcessInfo p;
      p.pid = j.at(0);
      p.parent = j.at(1);
      p.uid = j.at(2);
      p.threads = j.at(3);
      p.state = static_cast<char>(j.at(4).get<int>());
      p.cpu_ns = j.at(5);
      p.resident = j.at(6);
      p.started_ns = j.at(7);
      p.command_line = j.at(8).get<std::string>();
      out.push_back(std::move(p));
    }
  });
}

std::string Serialize(const Stats& s) {
  return Pack(Json::array({s.cpu_user_ns, s.cpu_system_ns, s.memory, s.memory_limit, s.processes, s.threads}));
}

Result<Stats> ParseStats(const std::string& bytes) {
  return Unpack<Stats>(bytes, [](const Json& j, Stats& s) {
    s.cpu_user_ns = j.at(0);
    s.cpu_system_ns = j.at(1);
    s.memory = j.at(2);
    s.memory_limit = j.at(3);
    s.processes = j.at(4);
    s.threads = j.at(5);
  });
}

std::string Serialize(const std::vector<Metric>& metrics) {
  Json list = Json::array();
  for (const Metric& m : metrics) list.push_back(Json::array({m.name, m.label, m.label_value, m.value}));
  return Pack(list);
}

Result<std::vector<Metric>> ParseMetrics(const std::string& bytes) {
  return Unpack<std::vector<Metric>>(bytes, [](const Json& list, std::vector<Metric>& out) {
    for (const Json& j : list) {
      out.push_back({j.at(0).get<std::string>(), j.at(1).get<std::string>(), j.at(2).get<std::string>(), j.at(3)});
    }
  });
}

}  // namespace redoubt::control

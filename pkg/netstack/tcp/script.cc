#include "pkg/netstack/tcp/script.h"

#include <algorithm>
#include <map>

namespace redoubt::netstack::tcp {

namespace {

constexpr std::pair<char, uint8_t> kFlags[] = {{'S', kSyn}, {'F', kFin}, {'R', kRst}, {'P', kPsh},
                                               {'A', kAck}, {'U', kUrg}, {'E', kEce}, {'C', kCwr}};

// What a line says of a segment. PSH is not compared unless it is written.
struct Words {
  std::string flags;
  Seq seq = 0;
  size_t length = 0;
  std::map<std::string, uint64_t> numbers;
  std::vector<SeqRange> sack;
  std::string error;
};

Words ReadWords(std::istringstream& in) {
  Words w;
  std::string range, word;
  in >> w.flags >> range;
  size_t plus = range.find('+');
  if (plus == std::string::npos) {
    w.error = "no SEQ+LEN";
    return w;
  }
  w.seq = static_cast<Seq>(std::stol(range.substr(0, plus)));
  w.length = std::stoul(range.substr(plus + 1));
  while (in >> word) {
    if (word == "sackok" || word == "ce" || word == "ect") {
      w.numbers[word] = 1;
    } else if (word == "ts") {
      in >> w.numbers["ts"] >> w.numbers["ecr"];
    } else if (word == "sack") {
      std::streampos at = in.tellg();
      while (in >> word) {
        size_t dash = word.find('-', 1);
        if (dash == std::string::npos || !isdigit(word[0])) break;
        w.sack.push_back(
            {static_cast<Seq>(std::stol(word.substr(0, dash))), static_cast<Seq>(std::stol(word.substr(dash + 1)))});
        at = in.tellg();
      }
      if (in) {
        in.seekg(at);
      } else {
        in.clear();
        in.seekg(0, std::ios::end);
      }
      w.numbers["sack"] = w.sack.size();
    } else {
      in >> w.numbers[word];
    }
  }
  return w;
}

Segment Sized(size_t n) {
  Segment s;
  s.payload = Buffer::Allocate(n);
  return s;
}

// Of so many bytes, which are the same every time.
FastOpenCookie Cookie(uint64_t length) {
  FastOpenCookie cookie{.length = static_cast<uint8_t>(std::min<uint64_t>(length, 16))};
  for (uint8_t i = 0; i < cookie.length; i++) cookie.bytes[i] = static_cast<uint8_t>(0xc0 + i);
  return cookie;
}

}  // namespace

void Script::Emit(Segment& s) { sent_.push_back(std::move(s)); }

std::string Script::Describe(const Segment& s) {
  std::string out;
  for (auto [c, bit] : kFlags) {
    if (s.Has(bit)) out += c;
  }
  if (out.empty()) out = ".";
  out += " " + std::to_string(SeqDiff(s.seq, kIss)) + "+" + std::to_string(s.payload.size());
  if (s.Has(kAck)) out += " ack " + std::to_string(SeqDiff(s.ack, kPeerIss));
  out += " win " + std::to_string(s.window);
  if (s.options.mss) out += " mss " + std::to_string(*s.options.mss);
  if (s.options.window_scale) out += " ws " + std::to_string(*s.options.window_scale);
  if (s.options.sack_permitted) out += " sackok";
  if (s.options.timestamp) {
    out += " ts " + std::to_string(s.options.ts_value) + " " + std::to_string(s.options.ts_echo);
  }
  if (s.options.sack_count > 0) {
    out += " sack";
    for (const SeqRange& r : s.options.sack_blocks()) {
      out += " " + std::to_string(SeqDiff(r.start, kPeerIss)) + "-" + std::to_string(SeqDiff(r.end, kPeerIss));
    }
  }
  if (s.options.fast_open) out += " fo " + std::to_string(s.options.fast_open->length);
  if (s.Has(kUrg)) out += " urg " + std::to_string(s.urgent);
  if (s.ecn == Ecn::kEct0) out += " ect";
  return out;
}

std::string Script::Run(const std::string& text) {
  Script script;
  script.config_.mtu = 1020;
  script.config_.timestamps = script.config_.window_scaling = false;
  std::istringstream in(text);
  std::string line;
  for (int number = 1; std::getline(in, line); number++) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    std::string error = script.Line(line);
    if (!error.empty()) return "line " + std::to_string(number) + ": " + line + ": " + error;
  }
  return script.sent_.empty() ? "" : "sent at the end: " + Describe(script.sent_.front());
}

std::string Script::Line(const std::string& line) {
  std::istringstream in(line);
  std::string verb;
  in >> verb;
  if (verb == ">") return Expect(in);
  if (verb == "any") {
    sent_.clear();
    return "";
  }
  static const char* const kAsserts[] = {"state", "error", "readable", "cwnd", "in_flight", "mss", "rto", "cookie"};
  for (const char* a : kAsserts) {
    if (verb == a) return Assert(verb, in);
  }
  if (!sent_.empty()) return "sent but not named: " + Describe(sent_.front());
  if (verb == "config") return Configure(in);
  if (verb == "set") return Set(in);
  if (verb == "connect" || verb == "listen") return Open(verb == "listen", in);
  if (verb == "<") return Incoming(in);
  if (verb[0] == '+') {
    size_t unit = 0;
    Time n = std::stol(verb.substr(1), &unit);
    std::string u = verb.substr(1 + unit);
    Pass(n * (u == "s" ? kSecond : u == "ms" ? kMillisecond : kMicrosecond));
    return "";
  }
  Connection& c = *connection_;
  size_t n = 0;
  std::string option;
  if (verb == "write") {
    bool more = false, urgent = false;
    in >> n;
    while (in >> option) (option == "more" ? more : urgent) = true;
    return c.Write(now_, Buffer::Allocate(n), more, urgent) ? "" : "the write failed";
  }
  if (verb == "read") {
    in >> n;
    size_t got = c.Read(now_, n).size();
    return got == n ? "" : "read " + std::to_string(got);
  }
  if (verb == "urgent") return c.ReadUrgent(false) ? "" : "no urgent byte";
  if (verb == "shutdown") return c.Shutdown(now_), "";
  if (verb == "close") return c.Close(now_), "";
  if (verb == "abort") return c.Abort(now_), "";
  if (verb == "icmp") {
    long seq = 0;
    int error = 0;
    in >> seq >> error;
    return c.OnIcmpError(now_, kIss + static_cast<Seq>(seq), error, true), "";
  }
  if (verb == "mtu") {
    in >> n;
    return c.OnPathMtu(now_, static_cast<uint32_t>(n), true), "";
  }
  return "not a statement";
}

std::string Script::Open(bool listen, std::istringstream& in) {
  connection_ = std::make_unique<Connection>(config_, settings_, *this);
  listening_ = listen;
  size_t data = 0;
  for (std::string word; in >> word;) {
    uint64_t n = 0;
    if (word == "data") {
      accept_data_ = true;
    } else if (word == "fo" && in >> n) {
      reply_cookie_ = Cookie(n);
    } else if (word != "write" || !(in >> data)) {
      return "no such thing: " + word;
    }
  }
  if (!listen) connection_->Connect(now_, kIss, reply_cookie_, data > 0 ? Buffer::Allocate(data) : Buffer());
  return "";
}

std::string Script::Configure(std::istringstream& in) {
  for (std::string word; in >> word;) {
    size_t eq = word.find('=');
    std::string key = word.substr(0, eq);
    uint32_t n = static_cast<uint32_t>(std::stoul(word.substr(eq + 1)));
    if (key == "mtu")
      config_.mtu = n;
    else if (key == "gso")
      config_.gso_max = n;
    else if (key == "ts")
      config_.timestamps = n != 0;
    else if (key == "sack")
      config_.sack = n != 0;
    else if (key == "ws")
      config_.window_scaling = n != 0;
    else if (key == "ecn")
      config_.ecn = n != 0;
    else if (key == "rcv")
      config_.receive_buffer = config_.max_receive_buffer = n;
    else if (key == "snd")
      config_.send_buffer = config_.max_send_buffer = n;
    else if (key == "reno")
      config_.congestion = CongestionAlgorithm::kReno;
    else
      return "no such key: " + key;
  }
  return "";
}

std::string Script::Set(std::istringstream& in) {
  Settings& s = connection_ ? connection_->settings() : settings_;
  for (std::string word; in >> word;) {
    size_t eq = word.find('=');
    std::string key = word.substr(0, eq);
    int64_t n = std::stol(word.substr(eq + 1));
    if (key == "nodelay")
      s.nodelay = n != 0;
    else if (key == "cork")
      s.cork = n != 0;
    else if (key == "keepalive")
      s.keepalive = n != 0;
    else if (key == "oob_inline")
      s.oob_inline = n != 0;
    else if (key == "idle")
      s.keep_idle = n * kMillisecond;
    else if (key == "interval")
      s.keep_interval = n * kMillisecond;
    else if (key == "count")
      s.keep_count = static_cast<uint8_t>(n);
    else if (key == "retries")
      s.retries = static_cast<uint8_t>(n);
    else if (key == "syn_retries")
      s.syn_retries = static_cast<uint8_t>(n);
    else if (key == "user_timeout")
      s.user_timeout = n * kMillisecond;
    else
      return "no such key: " + key;
  }
  if (connection_) connection_->OnSettings(now_);
  return "";
}

std::string Script::Incoming(std::istringstream& in) {
  Words w = ReadWords(in);
  if (!w.error.empty()) return w.error;
  Segment s = Sized(w.length);
  for (auto [c, bit] : kFlags) {
    if (w.flags.find(c) != std::string::npos) s.flags |= bit;
  }
  s.seq = kPeerIss + w.seq;
  s.ack = kIss + static_cast<Seq>(w.numbers["ack"]);
  s.window = static_cast<uint16_t>(w.numbers.contains("win") ? w.numbers["win"] : 65535);
  s.urgent = static_cast<uint16_t>(w.numbers["urg"]);
  if (w.numbers["ce"] != 0) s.ecn = Ecn::kCe;
  if (w.numbers.contains("mss")) s.options.mss = static_cast<uint16_t>(w.numbers["mss"]);
  if (w.numbers.contains("ws")) s.options.window_scale = static_cast<uint8_t>(w.numbers["ws"]);
  s.options.sack_permitted = w.numbers["sackok"] != 0;
  if (w.numbers.contains("ts")) {
    s.options.timestamp = true;
    s.options.ts_value = static_cast<uint32_t>(w.numbers["ts"]);
    s.options.ts_echo = static_cast<uint32_t>(w.numbers["ecr"]);
  }
  if (w.numbers.contains("fo")) s.options.fast_open = Cookie(w.numbers["fo"]);
  for (const SeqRange& r : w.sack) s.options.sack[s.options.sack_count++] = {kIss + r.start, kIss + r.end};
  if (listening_) {
    listening_ = false;
    connection_->Accept(now_, kIss, s, accept_data_, reply_cookie_);
  } else {
    connection_->OnSegment(now_, s);
  }
  return "";
}

std::string Script::Expect(std::istringstream& in) {
  Words w = ReadWords(in);
  if (!w.error.empty()) return w.error;
  if (sent_.empty()) return "nothing was sent";
  Segment s = std::move(sent_.front());
  sent_.pop_front();
  std::string got = "got " + Describe(s);
  for (auto [c, bit] : kFlags) {
    bool wanted = w.flags.find(c) != std::string::npos;
    if (wanted != s.Has(bit) && (c != 'P' || wanted)) return got;
  }
  if (s.seq != kIss + w.seq && w.flags != "R") return got;
  if (s.payload.size() != w.length) return got;
  for (auto& [key, n] : w.numbers) {
    bool same = key == "ack"      ? s.ack == kPeerIss + static_cast<Seq>(n)
                : key == "win"    ? s.window == n
                : key == "mss"    ? s.options.mss == n
                : key == "ws"     ? s.options.window_scale == n
                : key == "sackok" ? s.options.sack_permitted
                : key == "ts"     ? s.options.timestamp
                : key == "ecr"    ? s.options.ts_echo == n
                : key == "urg"    ? s.urgent == n
                : key == "ect"    ? s.ecn == Ecn::kEct0
                : key == "size"   ? s.segment_size == n
                : key == "sack"   ? s.options.sack_count == n
                : key == "fo"     ? s.options.fast_open && s.options.fast_open->length == n &&
                                    std::ranges::equal(s.options.fast_open->span(), Cookie(n).span())
                              : false;
    if (!same) return got + " (" + key + ")";
  }
  if (s.options.fast_open && !w.numbers.contains("fo")) return got + " (fo)";
  for (size_t i = 0; i < w.sack.size(); i++) {
    if (s.options.sack[i] != SeqRange{kPeerIss + w.sack[i].start, kPeerIss + w.sack[i].end}) return got + " (sack)";
  }
  if (w.sack.empty() && !w.numbers.contains("sack") && s.options.sack_count > 0) return got + " (sack)";
  return "";
}

std::string Script::Assert(const std::string& what, std::istringstream& in) {
  Connection& c = *connection_;
  if (what == "state") {
    static const std::map<std::string, State> kNames = {
        {"established", State::kEstablished}, {"syn_sent", State::kSynSent},     {"syn_received", State::kSynReceived},
        {"fin_wait1", State::kFinWait1},      {"fin_wait2", State::kFinWait2},   {"time_wait", State::kTimeWait},
        {"closed", State::kClosed},           {"close_wait", State::kCloseWait}, {"last_ack", State::kLastAck},
        {"closing", State::kClosing}};
    std::string name;
    in >> name;
    return kNames.at(name) == c.state() ? "" : "it is " + std::to_string(static_cast<int>(c.state()));
  }
  int64_t n = 0;
  in >> n;
  int64_t is = what == "error"       ? c.error()
               : what == "readable"  ? static_cast<int64_t>(c.Readable())
               : what == "cwnd"      ? c.congestion().cwnd() / c.mss()
               : what == "in_flight" ? c.scoreboard().in_flight()
               : what == "mss"       ? c.mss()
               : what == "cookie"    ? (c.fast_open_cookie() ? c.fast_open_cookie()->length : 0)
                                     : c.rtt().rto() / kMillisecond;
  return is == n ? "" : "it is " + std::to_string(is);
}

void Script::Pass(Time t) {
  Time end = now_ + t;
  while (connection_->NextDeadline() <= end) {
    now_ = std::max(now_, connection_->NextDeadline());
    connection_->OnTimer(now_);
  }
  now_ = end;
}

}  // namespace redoubt::netstack::tcp

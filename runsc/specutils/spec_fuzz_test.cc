// Configurations of strangers: saved ones (corpus/) whose bytes, or whose values, are changed at random. Each is
// answered with a specification that survives the way to the Sentry, or with one line.
#include <gtest/gtest.h>
#include <linux/seccomp.h>

#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "runsc/specutils/codec.h"
#include "runsc/specutils/seccomp.h"
#include "runsc/specutils/spec.h"
#include "test/fuzz/rounds.h"

namespace redoubt::specutils {
namespace {

using Json = nlohmann::json;

std::vector<std::string> Corpus() {
  std::vector<std::string> corpus;
  for (const auto& file : std::filesystem::directory_iterator("runsc/specutils/corpus")) {
    Expected<std::string> text = ReadText(file.path());
    EXPECT_TRUE(text);
    if (text) corpus.push_back(*text);
  }
  return corpus;
}

class Mutator final {
 public:
  Mutator(uint64_t seed, const std::vector<std::string>& corpus) : random_(seed), corpus_(corpus) {}

  std::string Make() {
    std::string text = Pick(corpus_);
    if (random_() % 4 != 0) {
      Json json = Json::parse(text);
      for (uint64_t n = 1 + random_() % 4; n > 0; n--) ChangeValue(&json);
      text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    if (random_() % 3 == 0) {
      for (uint64_t n = 1 + random_() % 4; n > 0; n--) ChangeBytes(&text);
    }
    return text;
  }

 private:
  template <typename T>
  const T& Pick(const std::vector<T>& of) {
    return of[random_() % of.size()];
  }

  Json Value() {
    switch (random_() % 20) {
      case 0:
        return nullptr;
      case 1:
        return true;
      case 2:
        return -1;
      case 3:
        return UINT64_MAX;
      case 4:
        return INT64_MIN;
      case 5:
        return 1e300;
      case 6:
        return 0.5;
      case 7:
        return std::string("a\0b", 3);
      case 8:
        return std::string(random_() % 5000, 'x');
      case 9:
        return Json::array();
      case 10:
        return Json::object();
      case 11:
        return Json::array({Json::object({{"", nullptr}}), 5});
      case 12:
        return "line\nfeed";
      case 13:
        return "../../etc";
      case 14:
        return uint64_t{1} << (random_() % 64);
      case 15:
        return Json::array({"SCMP_ACT_ERRNO", "bind", "ro"});
      case 16: {
        static const std::vector<std::string> words = {"SCMP_ACT_NOTIFY",      "SCMP_ACT_TRACE", "SCMP_CMP_MASKED_EQ",
                                                       "SCMP_ARCH_S390",       "clone",          "RLIMIT_NPROC",
                                                       "CAP_SYS_ADMIN",        "network",        "1.0.0",
                                                       "SCMP_ACT_KILL_PROCESS"};
        return Pick(words);
      }
      case 17: {
        // A piece of another.
        Json other = Json::parse(Pick(corpus_));
        return *Somewhere(&other);
      }
      default:
        return random_() % 512;
    }
  }

  // A value in it, or itself.
  Json* Somewhere(Json* json) {
    while (!json->empty() && json->is_structured() && random_() % 8 != 0) {
      auto it = json->begin();
      std::advance(it, static_cast<ptrdiff_t>(random_() % json->size()));
      json = &*it;
    }
    return json;
  }

  void ChangeValue(Json* json) {
    Json* at = Somewhere(json);
    if (at->is_array() && random_() % 2 == 0) {
      // More of the same, or less.
      if (!at->empty() && random_() % 2 == 0) {
        at->erase(random_() % at->size());
      } else {
        const Json again = at->empty() ? Value() : Json((*at)[random_() % at->size()]);
        for (uint64_t n = random_() % 50 + 1; n > 0; n--) at->push_back(again);
      }
    } else if (at->is_object() && !at->empty() && random_() % 2 == 0) {
      auto it = at->begin();
      std::advance(it, static_cast<ptrdiff_t>(random_() % at->size()));
      at->erase(it);
    } else {
      *at = Value();
    }
  }

  void ChangeBytes(std::string* text) {
    static const std::vector<std::string> tokens = {"{",
                                                    "}",
                                                    "[",
                                                    "]",
                                                    "\"",
                                                    "\\",
                                                    "\\u0000",
                                                    "\\ud800",
                                                    "1e9",
                                                    "-",
                                                    ",",
                                                    ":",
                                                    "null",
                                                    "\xff\xfe",
                                                    "\n",
                                                    "//",
                                                    "[[[[[[[[[",
                                                    "{\"a\":",
                                                    "18446744073709551616"};
    if (text->empty()) return;
    const size_t at = random_() % text->size();
    switch (random_() % 6) {
      case 0:
        (*text)[at] = static_cast<char>(random_());
        break;
      case 1:
        text->insert(at, Pick(tokens));
        break;
      case 2:
        text->erase(at, random_() % 20 + 1);
        break;
      case 3:
        text->resize(at);
        break;
      case 4: {
        std::string many;
        for (uint64_t n = random_() % 3000; n > 0; n--) many += Pick(tokens)[0];
        text->insert(at, many);
        break;
      }
      default:
        text->insert(at, text->substr(random_() % text->size(), random_() % 200));
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& corpus_;
};

void CheckError(const std::string& error) {
  EXPECT_TRUE(error.starts_with("f: ")) << error;
  EXPECT_LE(error.size(), 1100u);
  EXPECT_EQ(error.find('\n'), std::string::npos) << error;
}

// Whether it was taken.
bool Check(const std::string& text) {
  if (Expected<Process> process = ParseProcessConfig(text, "f"); process) {
    EXPECT_FALSE(process->args.empty());
    const std::string bytes = SerializeProcess(*process);
    Expected<Process> again = ParseProcess(bytes);
    EXPECT_TRUE(again && SerializeProcess(*again) == bytes);
  } else {
    CheckError(process.error());
  }
  if (Expected<Resources> resources = ParseResourcesConfig(text, "f"); !resources) CheckError(resources.error());
  Expected<Spec> spec = ParseConfig(text, "f", "/bundle");
  if (!spec) {
    CheckError(spec.error());
    return false;
  }
  EXPECT_FALSE(spec->process.args.empty());
  EXPECT_TRUE(spec->root_path.starts_with('/'));
  if (spec->seccomp) {
    if (Expected<SeccompProgram> program = CompileSeccomp(*spec->seccomp, "f"); program) {
      EXPECT_TRUE(bpf::Program::Create(program->code, sizeof(seccomp_data) / sizeof(uint32_t)));
      spec->seccomp_program = std::move(*program);
    } else {
      CheckError(program.error());
    }
  }
  const std::string bytes = SerializeSpec(*spec);
  Expected<Spec> again = ParseSpec(bytes);
  EXPECT_TRUE(again && SerializeSpec(*again) == bytes);
  return true;
}

TEST(SpecFuzz, TheCorpusIsGood) {
  const std::vector<std::string> corpus = Corpus();
  EXPECT_GE(corpus.size(), 3u);
  for (const std::string& text : corpus) EXPECT_TRUE(Check(text)) << ParseConfig(text, "f", "/b").error();
}

TEST(SpecFuzz, AnswersAreSpecificationsOrLines) {
  const std::vector<std::string> corpus = Corpus();
  uint64_t taken = 0, refused = 0;
  fuzz::Rounds(3000, [&](uint64_t seed) {
    const std::clock_t start = std::clock();
    (Check(Mutator(seed, corpus).Make()) ? taken : refused)++;
    EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 10);  // of processor time
  });
  // Of one seed that is repeated nothing can be expected.
  if (taken + refused < 1000) return;
  EXPECT_GT(taken, (taken + refused) / 20);
  EXPECT_GT(refused, (taken + refused) / 20);
}

// What takes time or room out of proportion to its length.
TEST(SpecFuzz, LargeTextsAreAnsweredSoon) {
  auto config = [](const std::string& rest) {
    return R"({"ociVersion": "1.0.2", "process": {"args": ["a"], "cwd": "/"}, "root": {"path": "r"}, )" + rest + "}";
  };
  std::string keys;
  for (int i = 0; i < 200'000; i++) keys += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  std::string names;
  for (int i = 0; i < 200'000; i++) names += ",\"read\"";
  const std::clock_t start = std::clock();
  EXPECT_TRUE(Check(config("\"annotations\": {" + keys + "}")));
  EXPECT_FALSE(Check(std::string(kMaxText + 1, ' ')));
  EXPECT_FALSE(Check(std::string(kMaxText, '[')));
  EXPECT_FALSE(Check(config("\"x\": " + std::string(1'000'000, '[') + std::string(1'000'000, ']'))));
  EXPECT_FALSE(Check(config("\"hostname\": \"" + std::string(1'000'000, 'x'))));
  EXPECT_TRUE(
      Check(config(R"("linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write")" +
                   names + R"(], "action": "SCMP_ACT_LOG"}]}})")));
  EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 20);
}

}  // namespace
}  // namespace redoubt::specutils

#include "pkg/sentry/loader/script.h"

#include <gtest/gtest.h>

#include <random>

#include "test/fuzz/rounds.h"

namespace redoubt::loader {
namespace {

ScriptLine Parse(std::string_view s) {
  Result<std::optional<ScriptLine>> r = ParseScript(s);
  EXPECT_TRUE(r.has_value() && r->has_value()) << s;
  return r && *r ? **r : ScriptLine{};
}

TEST(Script, NameAndArgument) {
  EXPECT_EQ(Parse("#!/bin/sh\necho").interpreter, "/bin/sh");
  EXPECT_FALSE(Parse("#!/bin/sh\n").argument.has_value());
  EXPECT_EQ(Parse("#! \t/bin/sh \t\n").interpreter, "/bin/sh");
  EXPECT_FALSE(Parse("#!/bin/sh   \n").argument.has_value());
  EXPECT_EQ(Parse("#!/usr/bin/env python3 -u \t \n").argument, "python3 -u") << "one argument, blanks inside kept";
  EXPECT_EQ(Parse("#!/bin/sh -e").argument, "-e") << "no newline at the end of the file";
  EXPECT_EQ(Parse("#!sh\n").interpreter, "sh");
  EXPECT_EQ(Parse(std::string_view("#!/bin/a\0b c\n", 13)).interpreter, "/bin/a");
}

TEST(Script, OthersAreNoScripts) {
  for (std::string_view s : {"", "#", "!#",
                             "\x7f"
                             "ELF",
                             " #!/bin/sh\n"}) {
    Result<std::optional<ScriptLine>> r = ParseScript(s);
    ASSERT_TRUE(r.has_value()) << s;
    EXPECT_FALSE(r->has_value()) << s;
  }
}

TEST(Script, NoNameIsEnoexec) {
  for (std::string_view s : {"#!", "#!\n", "#!  \t \n/bin/sh"}) EXPECT_EQ(ParseScript(s).error(), Errno(ENOEXEC)) << s;
  EXPECT_EQ(ParseScript(std::string("#!") + std::string(254, ' ')).error(), Errno(ENOEXEC));
}

TEST(Script, LongLinesAreCutButNotTheName) {
  EXPECT_EQ(ParseScript("#!/" + std::string(300, 'a')).error(), Errno(ENOEXEC));
  EXPECT_EQ(ParseScript("#!/" + std::string(253, 'a')).error(), Errno(ENOEXEC));
  EXPECT_EQ(Parse("#!/" + std::string(252, 'a')).interpreter.size(), 253u) << "the whole of a short file";
  EXPECT_EQ(Parse("#!/" + std::string(252, 'a') + " x\n").interpreter.size(), 253u);
  std::string fits = "#!/" + std::string(252, 'a') + "\n";
  EXPECT_EQ(Parse(fits).interpreter.size(), 253u);
  std::string argument = "#!/bin/sh " + std::string(400, 'x') + "\n";
  EXPECT_EQ(Parse(argument).argument->size(), 255u - 10);
}

TEST(Script, AnyBytesAreSafe) {
  const char alphabet[] = {'#', '!', ' ', '\t', '\n', '\0', 'a', '/'};
  fuzz::Rounds(20'000, [&](uint64_t seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::string s = "#!";
    size_t n = random() % 300;
    for (size_t j = 0; j < n; j++) s += alphabet[random() % sizeof(alphabet)];
    Result<std::optional<ScriptLine>> r = ParseScript(s);
    if (r && *r) {
      EXPECT_FALSE((*r)->interpreter.empty());
      EXPECT_EQ((*r)->interpreter.find_first_of(std::string_view(" \t\n\0", 4)), std::string::npos);
    }
  });
}

}  // namespace
}  // namespace redoubt::loader

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "tests/tidy/house_rules.h"
#include "tests/tidy/source_text.h"

namespace witan::tidy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::filesystem::path kRoot = WITAN_SOURCE_DIR;

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<SourceFile> AllSources() {
  std::vector<SourceFile> files;
  for (const char* folder :
       {"base", "model", "proto", "net", "kernels", "worker", "coordinator",
        "cli", "bench", "tests"}) {
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(kRoot / folder)) {
      const std::string extension = entry.path().extension();
      if (extension == ".h" || extension == ".cc") {
        files.push_back({std::filesystem::relative(entry.path(), kRoot),
                         ReadText(entry.path())});
      }
    }
  }
  std::sort(
      files.begin(), files.end(),
      [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

std::vector<std::string> ViolationsIn(const std::string& path,
                                      const std::string& text) {
  return Violations({{path, text}}, {});
}

TEST(TidyTest, SourcesKeepTheRulesOfTheHouse) {
  const auto exceptions =
      ParseExceptions(ReadText(kRoot / "tests/tidy/exceptions.txt"));
  for (const std::string& violation : Violations(AllSources(), exceptions)) {
    ADD_FAILURE() << violation;
  }
}

TEST(TidyTest, EveryTestFileIsATestOfTheBuild) {
  const std::string registered =
      ReadText(std::filesystem::path(WITAN_BINARY_DIR).parent_path() /
               "CTestTestfile.cmake");
  const auto expected = ExpectedTests(AllSources());
  EXPECT_FALSE(expected.empty());
  for (const std::string& name : expected) {
    EXPECT_THAT(registered, HasSubstr("add_test([=[" + name + "]=]"));
  }
}

TEST(TidyTest, AllowedSkipsNameTestsThatExist) {
  std::string all_tests;
  for (const SourceFile& file : AllSources()) {
    if (file.path.ends_with("_test.cc")) all_tests += file.text;
  }
  for (std::string line :
       LinesOf(ReadText(kRoot / "tests/allowed_skips.txt"))) {
    line = line.substr(0, line.find_first_of(" #"));
    if (line.empty()) continue;
    const size_t dot = line.find('.');
    ASSERT_NE(dot, std::string::npos) << line;
    EXPECT_THAT(all_tests, HasSubstr("(" + line.substr(0, dot) + ", " +
                                     line.substr(dot + 1) + ")"));
  }
}

// The canaries: each rule is seen to fire on a planted violation.

TEST(TidyCanaryTest, ForbiddenArrowsAreFound) {
  EXPECT_THAT(ViolationsIn("kernels/x.cc", "#include \"worker/worker.h\"\n"),
              ElementsAre("kernels/x.cc:1: kernels may not include worker"));
  EXPECT_THAT(ViolationsIn("base/x.cc", "\n#include \"model/config.h\"\n"),
              ElementsAre("base/x.cc:2: base may not include model"));
  EXPECT_THAT(
      ViolationsIn("coordinator/text/x.cc",
                   "#include \"coordinator/schedule/scheduler.h\"\n"),
      ElementsAre("coordinator/text/x.cc:1: coordinator/text may not include "
                  "coordinator"));
  EXPECT_THAT(ViolationsIn("cli/x.cc", "#include \"coordinator/api/a.h\"\n"),
              ElementsAre(HasSubstr("cli may not include coordinator")));
  EXPECT_THAT(ViolationsIn("worker/x.cc", "#include \"x.h\"\n"),
              ElementsAre(HasSubstr("not included from the root")));
  EXPECT_THAT(ViolationsIn("cli/x.cc", "#include \"coordinator/text/a.h\"\n"),
              IsEmpty());
}

TEST(TidyCanaryTest, RpcOutsideTheEdgesIsFound) {
  for (const char* include :
       {"#include <grpcpp/grpcpp.h>\n", "#include \"proto/worker.pb.h\"\n",
        "#include <prometheus/registry.h>\n"}) {
    EXPECT_THAT(ViolationsIn("worker/decoder.cc", include),
                ElementsAre(HasSubstr("RPC outside the edges")));
    EXPECT_THAT(ViolationsIn("worker/worker_service.cc", include), IsEmpty());
    EXPECT_THAT(ViolationsIn("coordinator/cluster/grpc_link.cc", include),
                IsEmpty());
  }
}

TEST(TidyCanaryTest, LongFilesAndFunctionsAreFound) {
  std::string body;
  for (int i = 0; i < kMaxFunctionLines - 2; ++i) body += "  Call();\n";
  const std::string head =
      "namespace witan {\nvoid F(int a,\n       int b) {\n";
  EXPECT_THAT(ViolationsIn("base/x.cc", head + body + "}\n}\n"), IsEmpty());
  EXPECT_THAT(ViolationsIn("base/x.cc", head + body + "  Call();\n}\n}\n"),
              ElementsAre("base/x.cc:3: a function of 71 lines, at most 70"));
  EXPECT_THAT(Violations({{"base/x.cc", head + body + "  Call();\n}\n}\n"}},
                         ParseExceptions("base/x.cc:function 71  # why\n")),
              IsEmpty());
  const std::string lines(kMaxFileLines + 1, '\n');
  EXPECT_THAT(ViolationsIn("base/x.cc", lines),
              ElementsAre("base/x.cc:601: 601 lines, at most 600"));
}

TEST(TidyCanaryTest, ForbiddenWordsAreFound) {
  const std::vector<std::string> planted = {
      "// TO"
      "DO: later\n",
      "// see /wo"
      "rk/main\n",
      "TEST(A, DIS"
      "ABLED_B) {}\n",
      "class BlockMan"
      "ager;\n",
      "auto s = std::for"
      "mat(\"{}\", 1);\n",
      "absl::Mut"
      "ex mutex;\n",
      "std::this_thread::sleep_f"
      "or(x);\n",
      "std::cerr << x;\n",
      "  throw x;\n",
  };
  for (const std::string& text : planted) {
    EXPECT_EQ(ViolationsIn("base/x.cc", text).size(), 1u) << text;
  }
  EXPECT_THAT(ViolationsIn("base/x.cc",
                           "// a block man"
                           "ager\n"),
              IsEmpty());
  EXPECT_THAT(ViolationsIn("base/x.cc", "auto s = \"throw\";\n"), IsEmpty());
  EXPECT_THAT(ViolationsIn("base/string_ut"
                           "il.cc",
                           ""),
              ElementsAre(HasSubstr("file name")));
  EXPECT_THAT(ViolationsIn("worker/x.cc", "f(\"witan_steps_total\");\n"),
              ElementsAre(HasSubstr("metric's name")));
}

TEST(TidyCanaryTest, LimitsOutsideTheLimitsFileAreFound) {
  const std::vector<std::string> planted = {
      "constexpr int kMaxThings = 3;\n",
      "  static constexpr\nstd::chrono::seconds kIdleTimeout{5};\n",
      "const size_t kMinBytes = 3;\n",
      "void F() { constexpr Micros kRetryPauseUs = 3; }\n",
      "class X { static const int kRowLimit = 3; };\n",
  };
  for (const std::string& text : planted) {
    for (const char* path : {"net/x.cc", "coordinator/text/x.cc"}) {
      EXPECT_THAT(ViolationsIn(path, text),
                  ElementsAre(HasSubstr("a limit outside base/limits.h")))
          << text;
    }
    for (const char* path : {"kernels/x.cc", "tests/base/x.cc"}) {
      EXPECT_THAT(ViolationsIn(path, text), IsEmpty()) << text;
    }
  }
  EXPECT_THAT(ViolationsIn("net/x.cc", "\nconstexpr int\n    kMaxA = 1;\n"),
              ElementsAre("net/x.cc:3: kMaxA: a limit outside base/limits.h"));
  EXPECT_THAT(ViolationsIn("net/x.cc",
                           "const int limit = kMaxA;  // const int kMaxB = 1\n"
                           "constexpr int kRows = 3;\nif (x == kMaxA) {}\n"),
              IsEmpty());
  EXPECT_THAT(ViolationsIn("coordinator/text/normalizer.cc",
                           "constexpr int kMaxDecomposed = 32;\n"),
              IsEmpty());
}

TEST(TidyCanaryTest, UnbuiltAndEmptyTestsAreFound) {
  EXPECT_THAT(ViolationsIn("tests/base/x_test.cc", "int x;\n"),
              ElementsAre(HasSubstr("without a test")));
  EXPECT_THAT(ViolationsIn("tests/base/deep/x.cc", ""),
              ElementsAre(HasSubstr("does not look into")));
  EXPECT_THAT(ExpectedTests({{"tests/base/x_test.cc", ""}, {"base/x.cc", ""}}),
              ElementsAre("base_x_test"));
}

TEST(TidyCanaryTest, WrongGuardsAndStaleExceptionsAreFound) {
  EXPECT_THAT(ViolationsIn("base/x.h", "#ifndef X_H\n#define X_H\n#endif\n"),
              ElementsAre(HasSubstr("WITAN_BASE_X_H_")));
  EXPECT_THAT(Violations({}, ParseExceptions("base/gone.cc 700\n")),
              ElementsAre(HasSubstr("there is no base/gone.cc")));
}

TEST(TidySourceTextTest, CommentsAndLiteralsAreToldFromCode) {
  EXPECT_EQ(CodeOf("a // b\nc", true), "a     \nc");
  EXPECT_EQ(CodeOf("a /* b\n */ c", true), "a     \n    c");
  EXPECT_EQ(
      CodeOf("f(\"//\\\"x\", 'y', 1'000)", true),
      "f(" + std::string(7, ' ') + "," + std::string(4, ' ') + ", 1'000)");
  EXPECT_EQ(CodeOf("R\"x(a)\"b)x\" c", true), std::string(12, ' ') + "c");
  EXPECT_EQ(CodeOf("f(\"x\") // y", false), "f(\"x\")     ");
}

}  // namespace
}  // namespace witan::tidy

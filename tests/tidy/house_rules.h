#ifndef WITAN_TESTS_TIDY_HOUSE_RULES_H_
#define WITAN_TESTS_TIDY_HOUSE_RULES_H_

// The rules of the house that a machine can check, as pure functions of the
// sources. docs/architecture.md says why they are what they are.

#include <map>
#include <string>
#include <vector>

namespace witan::tidy {

constexpr int kMaxFileLines = 600;
constexpr int kMaxHeaderLines = 250;
constexpr int kMaxFunctionLines = 70;
constexpr int kMaxTestFunctionLines = 100;  // tables of cases included

struct SourceFile {
  std::string path;  // from the root of the repository
  std::string text;
};

// Largest number of lines allowed for files that tests/tidy/exceptions.txt
// names: "PATH LINES" for a file, "PATH:function LINES" for its functions.
using Exceptions = std::map<std::string, int>;

Exceptions ParseExceptions(const std::string& text);

// "path:line: what is wrong", by path and line; empty when all is well.
std::vector<std::string> Violations(const std::vector<SourceFile>& files,
                                    const Exceptions& exceptions);

// Test programs that the build must have, by the names CMake gives them.
std::vector<std::string> ExpectedTests(const std::vector<SourceFile>& files);

}  // namespace witan::tidy

#endif  // WITAN_TESTS_TIDY_HOUSE_RULES_H_

#ifndef WITAN_TESTS_TIDY_SOURCE_TEXT_H_
#define WITAN_TESTS_TIDY_SOURCE_TEXT_H_

// C++ source as the house rules look at it: lexed just enough to tell code
// from comments and literals, and to find functions.

#include <string>
#include <string_view>
#include <vector>

namespace witan::tidy {

// `text` with every character of a comment replaced by a blank and, with
// `blank_literals`, also those of string and character literals. Line breaks
// stay, so that line numbers do too.
std::string CodeOf(std::string_view text, bool blank_literals);

struct Function {
  int first_line = 0;  // of its opening brace
  int num_lines = 0;   // from there to its closing brace, both included
};

// Function bodies at namespace or class scope, lambdas being part of the
// function that holds them. `code` is CodeOf(text, true).
std::vector<Function> FunctionsOf(std::string_view code);

std::vector<std::string> LinesOf(std::string_view text);

}  // namespace witan::tidy

#endif  // WITAN_TESTS_TIDY_SOURCE_TEXT_H_

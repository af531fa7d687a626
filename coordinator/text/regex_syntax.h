#ifndef WITAN_COORDINATOR_TEXT_REGEX_SYNTAX_H_
#define WITAN_COORDINATOR_TEXT_REGEX_SYNTAX_H_

#include <absl/status/statusor.h>

#include <string>
#include <string_view>

namespace witan {

// A pattern in Oniguruma's default syntax, as tokenizer.json files hold them,
// rewritten to mean the same to PCRE2 with UTF, UCP and MULTILINE on and \n as
// the only line end.
//
// What means the same in both is kept. Rewritten: \s, \w, \W, \h, \v, \uHHHH,
// \xHH, {,n}, {n}?, {n,m}+, POSIX classes, names of scripts, and the flag m,
// which lets a dot match line ends. InvalidArgument for what they read
// differently or only one of them knows: other escapes and groups, classes in
// classes, &&, flags inside an alternative, the flags x and s, and under the
// flag i whatever Oniguruma folds to several characters ("ss" as "ß"), names of
// properties included. Errors of the syntax itself are left to
// PCRE2. REQUIRES: `pattern` is UTF-8.
absl::StatusOr<std::string> TranslatePattern(std::string_view pattern);

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_REGEX_SYNTAX_H_

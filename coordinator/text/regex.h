#ifndef WITAN_COORDINATOR_TEXT_REGEX_H_
#define WITAN_COORDINATOR_TEXT_REGEX_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// A pattern of a tokenizer.json, with the meaning that Oniguruma gives it (in
// particular \s is White_Space, \w is Alphabetic, M, Nd, Pc, and ^ and $ match
// at every line), run by PCRE2 with bounded steps and memory. Characters newer
// than the tables of PCRE2 (Unicode 14 in 10.42) match as older ones of their
// category do. Immutable; any number of threads at once.
class Regex {
 public:
  // InvalidArgument names the pattern and what is wrong with it, or what of it
  // is not supported (coordinator/text/regex_syntax.h).
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // A pattern that matches exactly `text`. REQUIRES: `text` is not empty.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  // A part of a text: one match, or what lies between two.
  struct Part {
    size_t begin = 0;
    size_t end = 0;
    bool is_match = false;
  };

  // Cuts `text` into parts, in order, without gaps. Parts between matches are
  // never empty. A match may be, but not where the match before it ends, as
  // Oniguruma's find_iter has it. An empty text has no parts. REQUIRES: `text`
  // is UTF-8. ResourceExhausted when a limit on steps or memory is reached.
  absl::Status Split(std::string_view text, std::vector<Part>* parts) const;

  // `text` with every match replaced. ResourceExhausted, without the memory
  // for it, when that is more than `max_bytes`.
  absl::StatusOr<std::string> ReplaceAll(std::string_view text,
                                         std::string_view replacement,
                                         size_t max_bytes) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code);

  std::shared_ptr<const Code> code_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_REGEX_H_

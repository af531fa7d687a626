#ifndef WITAN_COORDINATOR_TEXT_REGEX_H_
#define WITAN_COORDINATOR_TEXT_REGEX_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// A pattern of a tokenizer.json, with the meaning that Oniguruma gives it (in
// particular \s is White_Space and \w is Alphabetic, M, Nd, Pc), run by PCRE2
// with bounded steps and memory. Immutable; any number of threads at once.
class Regex {
 public:
  // InvalidArgument names the pattern and what is wrong with it.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // A pattern that matches exactly `text`. REQUIRES: `text` is not empty.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  // A part of a text: one match, or what lies between two.
  struct Part {
    size_t begin = 0;
    size_t end = 0;
    bool is_match = false;
  };

  // Cuts `text` into parts, in order, without gaps; parts between matches are
  // never empty. REQUIRES: `text` is UTF-8. ResourceExhausted when a limit on
  // steps or memory is reached.
  absl::Status Split(std::string_view text, std::vector<Part>* parts) const;

  // `text` with every match replaced.
  absl::StatusOr<std::string> ReplaceAll(std::string_view text,
                                         std::string_view replacement) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code);

  std::shared_ptr<const Code> code_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_REGEX_H_

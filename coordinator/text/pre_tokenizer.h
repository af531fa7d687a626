#ifndef WITAN_COORDINATOR_TEXT_PRE_TOKENIZER_H_
#define WITAN_COORDINATOR_TEXT_PRE_TOKENIZER_H_

#include <absl/status/statusor.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coordinator/text/json_value.h"
#include "coordinator/text/regex.h"

namespace witan {

// The "pre_tokenizer" of a tokenizer.json: cuts normalized text into the words
// that the model then encodes one by one.
class PreTokenizer {
 public:
  using Sink = std::function<void(std::string_view word)>;

  // An absent value keeps the text whole.
  static absl::StatusOr<PreTokenizer> Parse(const JsonValue& value);
  // Words are the matches of `pattern` and what lies between them, as bytes.
  static absl::StatusOr<PreTokenizer> ByteLevel(std::string_view pattern);

  // Words are raw bytes, each a symbol of its own (ByteLevel was the last
  // stage), instead of characters.
  bool is_byte_level() const { return is_byte_level_; }

  // Calls `sink` with each word, never empty, in order; a view is valid during
  // the call. `at_text_start`: `text` is where the whole input begins.
  // REQUIRES: `text` is UTF-8. ResourceExhausted when a pattern takes too long
  // or the stages make more than kMaxPreTokenizerGrowth bytes of each byte.
  absl::Status Apply(std::string_view text, bool at_text_start,
                     const Sink& sink) const;

 private:
  enum class Behavior {
    kRemoved,
    kIsolated,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous
  };
  struct Split {
    Regex pattern;
    Behavior behavior;
    bool invert;
  };
  struct AddPrefixSpace {};
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever };
    std::string replacement;
    Prepend prepend;
    Regex space;
  };
  using Stage = std::variant<Split, AddPrefixSpace, Metaspace>;

  static absl::StatusOr<Behavior> ParseBehavior(const JsonValue& value);
  static absl::Status Cut(const Split& split, std::string_view text,
                          std::vector<std::string_view>* words);
  absl::Status AddStages(const JsonValue& value);
  absl::Status AddSplit(std::string_view pattern, Behavior behavior,
                        bool invert);
  absl::Status AddMetaspace(const JsonValue& value);
  absl::Status AddByteLevel(const JsonValue& value);
  // `work_left`: bytes that stages may still be given.
  absl::Status ApplyFrom(size_t stage, std::string_view text,
                         bool at_text_start, const Sink& sink,
                         size_t* work_left) const;

  std::vector<Stage> stages_;
  bool is_byte_level_ = false;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_PRE_TOKENIZER_H_

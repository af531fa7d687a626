#ifndef WITAN_COORDINATOR_TEXT_REASONING_H_
#define WITAN_COORDINATOR_TEXT_REASONING_H_

// The thought that a reasoning model writes before its answer.

#include <absl/status/statusor.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/request.h"
#include "coordinator/text/chat_template.h"
#include "coordinator/text/tokenizer.h"

namespace witan {

// How the thoughts of one model are marked. Immutable.
struct Reasoning {
  std::string begin;  // "<think>"
  std::string end;    // "</think>"
  // Those that are one token each; that token counts as the marker also where
  // special tokens are left out of the text.
  std::optional<TokenId> begin_id;
  std::optional<TokenId> end_id;
  // The end marker with what the template writes around it ("\n</think>\n\n"),
  // as the tokenizer spells it: what closes a thought that is cut off.
  std::string closing;
  std::vector<TokenId> closing_ids;
};

// From `setting`: "none"; "BEGIN,END", each 1 to kMaxReasoningMarkerBytes of
// UTF-8; or "auto", which is <think> and </think> for a model with a chat
// template if both are tokens or the template writes them, else none.
// `chat_template` may be null. INVALID_ARGUMENT says what is wrong with the
// setting.
absl::StatusOr<std::optional<Reasoning>> FindReasoning(
    std::string_view setting, const Tokenizer& tokenizer,
    const ChatTemplate* chat_template);

// Whether a prompt opens a thought: its text ends with the begin marker,
// whitespace behind it apart.
bool OpensThought(const Reasoning& reasoning, const Tokenizer& tokenizer,
                  std::span<const TokenId> prompt);

// Tells the thought from the answer in a text that comes in pieces; what comes
// out does not depend on how the text is cut. One thought, at the beginning:
// the text starts inside it, or with the begin marker (after whitespace), and
// the thought ends at the first end marker. Of a text that starts otherwise all
// is answer. Line feeds at both ends of the thought and before the answer
// belong to the markers. A begin marker that repeats the one in the prompt is
// left out. Holds back what may become a marker. One thread at a time.
class ReasoningParser {
 public:
  // `reasoning` outlives this object; null: all is answer.
  ReasoningParser(const Reasoning* reasoning, bool starts_in_thought);

  struct Piece {
    std::string thought;
    std::string answer;
  };
  Piece Push(std::string_view text);
  // What is held back, when no more will come.
  Piece Finish();

  bool in_thought() const { return state_ == State::kThought; }
  bool had_thought() const { return had_thought_; }
  bool in_answer() const { return state_ == State::kAnswer; }

 private:
  enum class State { kBefore, kThought, kAnswer };

  // Decides whether what is held begins with a thought, once that is certain.
  void FindThought();
  // Moves what is certain of the thought from held_ to `thought`.
  void TakeThought(std::string& thought);

  const Reasoning* const reasoning_;
  State state_;
  bool had_thought_;
  bool may_repeat_begin_;         // of a thought that the prompt opened
  bool at_thought_start_ = true;  // nothing of it is certain yet
  bool at_answer_start_ = false;
  std::string held_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_REASONING_H_

#ifndef WITAN_COORDINATOR_API_CHOICE_TEXT_H_
#define WITAN_COORDINATOR_API_CHOICE_TEXT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/request.h"
#include "coordinator/api/served_model.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/reasoning.h"
#include "coordinator/text/stop.h"
#include "coordinator/text/tokenizer.h"
#include "proto/generation_request.h"

namespace witan {

struct ChoiceTextOptions {
  StopRules stop;
  bool skip_special_tokens = true;
  const Reasoning* reasoning = nullptr;  // null: the model does not think
  bool starts_in_thought = false;        // the prompt opened one
  // Tokens of the thought after which it is closed; REQUIRES: reasoning.
  std::optional<int64_t> thinking_budget_tokens;
};

// What the tokens of one choice say: thought and answer, and whether a stop
// string, which is looked for in the answer only, ended it. Cuts off a thought
// that reaches its budget, by naming the tokens that have to come next: it
// decides from the tokens alone, so the cut is at the same index whatever the
// batch. One thread at a time.
class ChoiceText {
 public:
  // `tokenizer` and options.reasoning outlive this object; `matcher` is of the
  // stop strings.
  ChoiceText(const Tokenizer& tokenizer, const ChoiceTextOptions& options,
             StopMatcher matcher);

  struct Piece {
    std::string reasoning;
    std::string text;
  };
  // What became certain with the next token, whose index is `index`; nothing is
  // to be pushed after a stop string matched.
  Piece Push(int64_t index, TokenId token_id);
  // What is held back, when no more tokens come.
  Piece Finish();

  // The token that has to come next, if it is not the model's to choose. To be
  // asked once before the first token and once after each.
  std::optional<TokenId> NextForcedToken();

  bool stopped() const { return stopped_; }  // a stop string matched
  // Tokens up to the end of the thought; 0 if there was none.
  int64_t num_reasoning_tokens() const { return num_reasoning_tokens_; }

 private:
  std::string TextOf(TokenId token_id);
  std::string Match(int64_t index, std::string answer);

  const ChoiceTextOptions options_;
  Detokenizer detokenizer_;
  ReasoningParser parser_;
  StopMatcher matcher_;
  bool stopped_ = false;
  int64_t num_reasoning_tokens_ = 0;
  int64_t num_thought_tokens_ = 0;  // since it was opened
  // Of the tokens that close the thought, those that were named; none before
  // the cut.
  std::optional<size_t> num_closing_;
};

// Of one choice of `request`; `prompt` decides whether it starts in a thought.
ChoiceText MakeChoiceText(const ServedModel& model,
                          const GenerationRequest& request,
                          const StopMatcher& matcher,
                          std::span<const TokenId> prompt);

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_CHOICE_TEXT_H_

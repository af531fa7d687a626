#include "coordinator/api/choice_text.h"

#include <utility>

#include "coordinator/schedule/sequence.h"

namespace witan {

ChoiceText::ChoiceText(const Tokenizer& tokenizer,
                       const ChoiceTextOptions& options, StopMatcher matcher)
    : options_(options),
      detokenizer_(tokenizer, {.skip_special = options.skip_special_tokens,
                               .continues_text = true}),
      parser_(options.reasoning, options.starts_in_thought),
      matcher_(std::move(matcher)) {}

// The markers are told by their text, special tokens or not.
std::string ChoiceText::TextOf(TokenId token_id) {
  std::string text = detokenizer_.Push(token_id);
  if (options_.reasoning == nullptr || !options_.skip_special_tokens ||
      parser_.in_answer()) {
    return text;
  }
  const Reasoning& reasoning = *options_.reasoning;
  const std::string* marker = nullptr;
  if (token_id == reasoning.begin_id) marker = &reasoning.begin;
  if (token_id == reasoning.end_id) marker = &reasoning.end;
  if (marker != nullptr && !text.ends_with(*marker)) text += *marker;
  return text;
}

std::string ChoiceText::Match(int64_t index, std::string answer) {
  if (!StopRulesApply(options_.stop, index)) return answer;
  StopMatcher::Result result = matcher_.Push(answer);
  stopped_ = result.matched;
  return std::move(result.text);
}

ChoiceText::Piece ChoiceText::Push(int64_t index, TokenId token_id) {
  const bool was_in_thought = parser_.in_thought();
  const bool had_thought = parser_.had_thought();
  Piece piece;
  if (!IsStopToken(options_.stop, index, token_id)) {
    ReasoningParser::Piece parsed = parser_.Push(TextOf(token_id));
    piece.reasoning = std::move(parsed.thought);
    piece.text = Match(index, std::move(parsed.answer));
  }
  if (was_in_thought) ++num_thought_tokens_;
  const bool is_of_thought =
      was_in_thought || (parser_.had_thought() && !had_thought);
  if (is_of_thought) num_reasoning_tokens_ = index + 1;
  return piece;
}

ChoiceText::Piece ChoiceText::Finish() {
  if (stopped_) return {};
  ReasoningParser::Piece last = parser_.Push(detokenizer_.Finish());
  ReasoningParser::Piece held = parser_.Finish();
  Piece piece;
  piece.reasoning = last.thought + held.thought;
  piece.text = matcher_.Push(last.answer + held.answer).text;
  piece.text += matcher_.Flush();
  return piece;
}

std::optional<TokenId> ChoiceText::NextForcedToken() {
  if (!options_.thinking_budget_tokens) return std::nullopt;
  if (!num_closing_) {
    if (!parser_.in_thought() ||
        num_thought_tokens_ < *options_.thinking_budget_tokens) {
      return std::nullopt;
    }
    num_closing_ = 0;
  }
  const std::vector<TokenId>& closing = options_.reasoning->closing_ids;
  if (*num_closing_ == closing.size()) return std::nullopt;
  return closing[(*num_closing_)++];
}

ChoiceText MakeChoiceText(const ServedModel& model,
                          const GenerationRequest& request,
                          const StopMatcher& matcher,
                          std::span<const TokenId> prompt) {
  ChoiceTextOptions options{
      .stop = request.stop,
      .skip_special_tokens = request.skip_special_tokens,
      .thinking_budget_tokens = request.thinking_budget_tokens};
  if (model.reasoning) {
    options.reasoning = &*model.reasoning;
    options.starts_in_thought =
        OpensThought(*model.reasoning, *model.tokenizer, prompt);
  }
  return ChoiceText(*model.tokenizer, options, matcher);
}

}  // namespace witan

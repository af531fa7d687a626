#include "coordinator/text/reasoning.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan {
namespace {

using nlohmann::ordered_json;

constexpr char kDefaultBegin[] = "<think>";
constexpr char kDefaultEnd[] = "</think>";
constexpr char kWhitespace[] = " \t\r\n\f\v";
// Told from whatever a template writes by itself.
constexpr char kProbeThought[] = "PROBE-THOUGHT";
constexpr char kProbeAnswer[] = "PROBE-ANSWER";
// Of a prompt's end, that a marker and whitespace behind it may take.
constexpr size_t kTailTokens = 2 * kMaxReasoningMarkerBytes;

// What a template makes of a conversation; empty if it refuses it.
std::string Render(const ChatTemplate& chat_template,
                   const Tokenizer& tokenizer, ordered_json messages,
                   bool add_generation_prompt, ordered_json arguments) {
  ChatTemplateInput input;
  input.messages = std::move(messages);
  input.add_generation_prompt = add_generation_prompt;
  input.special_tokens = tokenizer.special_tokens();
  input.arguments = std::move(arguments);
  return chat_template.Render(input).value_or("");
}

const ordered_json& Question() {
  static const auto& question =
      *new ordered_json({{"role", "user"}, {"content", "x"}});
  return question;
}

// A conversation with an answer that was thought about.
std::string RenderThought(const ChatTemplate& chat_template,
                          const Tokenizer& tokenizer) {
  const ordered_json answer = {{"role", "assistant"},
                               {"content", kProbeAnswer},
                               {"reasoning_content", kProbeThought}};
  return Render(chat_template, tokenizer, {Question(), answer},
                /*add_generation_prompt=*/false, ordered_json::object());
}

bool WritesMarkers(const ChatTemplate& chat_template,
                   const Tokenizer& tokenizer) {
  const ordered_json messages = {Question()};
  const std::string texts[] = {
      RenderThought(chat_template, tokenizer),
      Render(chat_template, tokenizer, messages, true, ordered_json::object()),
      Render(chat_template, tokenizer, messages, true,
             {{"enable_thinking", true}}),
  };
  return std::any_of(std::begin(texts), std::end(texts), [](const auto& text) {
    return text.find(kDefaultBegin) != std::string::npos ||
           text.find(kDefaultEnd) != std::string::npos;
  });
}

bool IsWhitespace(std::string_view text) {
  return text.find_first_not_of(kWhitespace) == std::string_view::npos;
}

// The end marker as the template writes it between thought and answer.
std::string ClosingOf(const Reasoning& reasoning, const Tokenizer& tokenizer,
                      const ChatTemplate* chat_template) {
  if (chat_template == nullptr) return reasoning.end;
  const std::string text = RenderThought(*chat_template, tokenizer);
  const size_t thought = text.find(kProbeThought);
  const size_t answer = text.find(kProbeAnswer);
  if (thought == std::string::npos || answer == std::string::npos) {
    return reasoning.end;
  }
  const size_t begin = thought + std::string_view(kProbeThought).size();
  const size_t marker = text.find(reasoning.end, begin);
  if (answer < begin || marker > answer) return reasoning.end;
  const std::string_view closing =
      std::string_view(text).substr(begin, answer - begin);
  const size_t behind = marker - begin + reasoning.end.size();
  const bool is_plain = behind <= closing.size() &&
                        closing.size() <= 4 * kMaxReasoningMarkerBytes &&
                        IsWhitespace(closing.substr(0, marker - begin)) &&
                        IsWhitespace(closing.substr(behind));
  return is_plain ? std::string(closing) : reasoning.end;
}

constexpr std::string_view kWhitespaceOf = kWhitespace;

// A marker of several tokens is found in the text, where special tokens do not
// show.
absl::Status CheckSpelling(const std::string& marker,
                           const Tokenizer& tokenizer) {
  if (tokenizer.IdOf(marker)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                   tokenizer.Encode(marker, {.add_special_tokens = false}));
  ASSIGN_OR_RETURN(const std::string shown, tokenizer.Decode(ids, true));
  if (shown.find(marker) != std::string::npos) return absl::OkStatus();
  return InvalidArgument(
      "--reasoning-markers: \"{}\" holds special tokens and is none by itself; "
      "allowed are a token, or text without special tokens",
      marker);
}

absl::Status CheckMarker(std::string_view marker) {
  if (!marker.empty() && marker.size() <= kMaxReasoningMarkerBytes &&
      IsValidUtf8(marker) &&
      kWhitespaceOf.find(marker.front()) == std::string_view::npos &&
      kWhitespaceOf.find(marker.back()) == std::string_view::npos) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "--reasoning-markers: a marker of {} bytes; each has 1 to {} bytes of "
      "UTF-8 and neither begins nor ends with whitespace",
      marker.size(), kMaxReasoningMarkerBytes);
}

// Length of the longest end of `text` that `marker` may start with.
size_t PartialMarkerSize(std::string_view text, std::string_view marker) {
  for (size_t size = std::min(text.size(), marker.size() - 1); size > 0;
       --size) {
    if (text.ends_with(marker.substr(0, size))) return size;
  }
  return 0;
}

void StripLineFeedsBefore(std::string& text) {
  text.erase(0, std::min(text.find_first_not_of('\n'), text.size()));
}

size_t SizeWithoutLineFeedsBehind(std::string_view text) {
  return text.find_last_not_of('\n') + 1;  // npos + 1 is 0
}

}  // namespace

absl::StatusOr<std::optional<Reasoning>> FindReasoning(
    std::string_view setting, const Tokenizer& tokenizer,
    const ChatTemplate* chat_template) {
  if (setting == "none") return std::nullopt;
  Reasoning reasoning{.begin = kDefaultBegin, .end = kDefaultEnd};
  if (setting == "auto") {
    if (chat_template == nullptr) return std::nullopt;
    const bool are_tokens =
        tokenizer.IdOf(reasoning.begin) && tokenizer.IdOf(reasoning.end);
    if (!are_tokens && !WritesMarkers(*chat_template, tokenizer)) {
      return std::nullopt;
    }
  } else {
    const size_t comma = setting.find(',');
    if (comma == std::string_view::npos) {
      return InvalidArgument(
          "--reasoning-markers is \"{}\"; allowed is auto, none or two texts "
          "with a comma between them, e.g. <think>,</think>",
          setting);
    }
    reasoning.begin = setting.substr(0, comma);
    reasoning.end = setting.substr(comma + 1);
    RETURN_IF_ERROR(CheckMarker(reasoning.begin));
    RETURN_IF_ERROR(CheckMarker(reasoning.end));
    RETURN_IF_ERROR(CheckSpelling(reasoning.begin, tokenizer));
    RETURN_IF_ERROR(CheckSpelling(reasoning.end, tokenizer));
  }
  reasoning.begin_id = tokenizer.IdOf(reasoning.begin);
  reasoning.end_id = tokenizer.IdOf(reasoning.end);
  reasoning.closing = ClosingOf(reasoning, tokenizer, chat_template);
  if (reasoning.end_id && reasoning.closing == reasoning.end) {
    reasoning.closing_ids = {*reasoning.end_id};
    return reasoning;
  }
  ASSIGN_OR_RETURN(
      reasoning.closing_ids,
      tokenizer.Encode(reasoning.closing, {.add_special_tokens = false}));
  ASSIGN_OR_RETURN(const std::string spelled,
                   tokenizer.Decode(reasoning.closing_ids, false));
  if (spelled.find(reasoning.end) == std::string::npos) {
    return InvalidArgument(
        "--reasoning-markers: the tokenizer cannot spell \"{}\"; it makes "
        "\"{}\" of it",
        reasoning.end, spelled);
  }
  return reasoning;
}

bool OpensThought(const Reasoning& reasoning, const Tokenizer& tokenizer,
                  std::span<const TokenId> prompt) {
  const auto tail = prompt.last(std::min(prompt.size(), kTailTokens));
  std::string text =
      tokenizer.Decode(tail, /*skip_special=*/false).value_or("");
  text.resize(text.find_last_not_of(kWhitespace) + 1);
  return text.ends_with(reasoning.begin);
}

ReasoningParser::ReasoningParser(const Reasoning* reasoning,
                                 bool starts_in_thought)
    : reasoning_(reasoning),
      state_(reasoning == nullptr ? State::kAnswer
             : starts_in_thought  ? State::kThought
                                  : State::kBefore),
      had_thought_(state_ == State::kThought),
      may_repeat_begin_(state_ == State::kThought) {}

ReasoningParser::Piece ReasoningParser::Push(std::string_view text) {
  Piece piece;
  held_ += text;
  if (state_ == State::kBefore) FindThought();
  if (state_ == State::kThought) TakeThought(piece.thought);
  if (state_ != State::kAnswer) return piece;
  if (at_answer_start_) StripLineFeedsBefore(held_);
  at_answer_start_ = at_answer_start_ && held_.empty();
  piece.answer = std::exchange(held_, "");
  return piece;
}

void ReasoningParser::FindThought() {
  const size_t num_spaces =
      std::min(held_.find_first_not_of(kWhitespace), held_.size());
  const std::string_view rest = std::string_view(held_).substr(num_spaces);
  if (rest.starts_with(reasoning_->begin)) {
    held_.erase(0, num_spaces + reasoning_->begin.size());
    state_ = State::kThought;
    had_thought_ = true;
  } else if (num_spaces > kMaxReasoningMarkerBytes ||
             !reasoning_->begin.starts_with(rest)) {
    state_ = State::kAnswer;
  }
}

void ReasoningParser::TakeThought(std::string& thought) {
  if (at_thought_start_) {
    StripLineFeedsBefore(held_);
    if (may_repeat_begin_) {
      if (held_.starts_with(reasoning_->begin)) {
        held_.erase(0, reasoning_->begin.size());
        StripLineFeedsBefore(held_);
      } else if (reasoning_->begin.starts_with(held_)) {
        return;
      }
      may_repeat_begin_ = false;
    }
    if (held_.empty()) return;
    at_thought_start_ = false;
  }
  const size_t end = held_.find(reasoning_->end);
  if (end != std::string::npos) {
    thought = held_.substr(
        0, SizeWithoutLineFeedsBehind(std::string_view(held_).substr(0, end)));
    held_.erase(0, end + reasoning_->end.size());
    state_ = State::kAnswer;
    at_answer_start_ = true;
    return;
  }
  const size_t num_open =
      held_.size() - PartialMarkerSize(held_, reasoning_->end);
  const size_t num_certain =
      SizeWithoutLineFeedsBehind(std::string_view(held_).substr(0, num_open));
  thought = held_.substr(0, num_certain);
  held_.erase(0, num_certain);
}

ReasoningParser::Piece ReasoningParser::Finish() {
  Piece piece;
  if (state_ == State::kThought) {
    held_.resize(SizeWithoutLineFeedsBehind(held_));
    piece.thought = std::exchange(held_, "");
  } else {
    piece.answer = std::exchange(held_, "");
  }
  return piece;
}

}  // namespace witan

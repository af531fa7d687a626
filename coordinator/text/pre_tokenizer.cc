#include "coordinator/text/pre_tokenizer.h"

#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/normalizer.h"

namespace witan {

namespace {

// The pattern of a ByteLevel stage with use_regex: contractions, then words,
// numbers and punctuation with the space before them, then other whitespace.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";

constexpr std::string_view kSupportedTypes =
    "Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, "
    "WhitespaceSplit, CharDelimiterSplit or Sequence";

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonValue& value) {
  PreTokenizer pre_tokenizer;
  if (value.exists()) RETURN_IF_ERROR(pre_tokenizer.AddStages(value));
  return pre_tokenizer;
}

absl::StatusOr<PreTokenizer> PreTokenizer::ByteLevel(std::string_view pattern) {
  PreTokenizer pre_tokenizer;
  RETURN_IF_ERROR(pre_tokenizer.AddSplit(pattern, Behavior::kIsolated,
                                         /*invert=*/false));
  pre_tokenizer.is_byte_level_ = true;
  return pre_tokenizer;
}

absl::StatusOr<PreTokenizer::Behavior> PreTokenizer::ParseBehavior(
    const JsonValue& value) {
  ASSIGN_OR_RETURN(const std::string_view name, value.String());
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return value.Mismatch(
      "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

absl::Status PreTokenizer::AddSplit(std::string_view pattern, Behavior behavior,
                                    bool invert) {
  ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
  stages_.push_back(Split{std::move(regex), behavior, invert});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddStages(const JsonValue& value) {
  ASSIGN_OR_RETURN(const std::string_view type, value["type"].String());
  if (stages_.size() >= kMaxTokenizerStages) {
    return InvalidArgument(
        "tokenizer.json: pre_tokenizer has more than {} stages",
        kMaxTokenizerStages);
  }
  if (is_byte_level_) {
    return value.Mismatch("nothing behind ByteLevel, which must come last");
  }
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const auto members, value["pretokenizers"].Array());
    for (const JsonValue& member : members) RETURN_IF_ERROR(AddStages(member));
    return absl::OkStatus();
  }
  if (type == "Split") {
    ASSIGN_OR_RETURN(Regex regex, ParsePattern(value["pattern"]));
    ASSIGN_OR_RETURN(const Behavior behavior, ParseBehavior(value["behavior"]));
    ASSIGN_OR_RETURN(const bool invert, value["invert"].BoolOr(false));
    stages_.push_back(Split{std::move(regex), behavior, invert});
    return absl::OkStatus();
  }
  if (type == "ByteLevel") return AddByteLevel(value);
  if (type == "Metaspace") return AddMetaspace(value);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual,
                     value["individual_digits"].BoolOr(false));
    return AddSplit(R"(\p{N})",
                    individual ? Behavior::kIsolated : Behavior::kContiguous,
                    /*invert=*/false);
  }
  if (type == "Punctuation") {
    Behavior behavior = Behavior::kIsolated;
    if (value["behavior"].exists()) {
      ASSIGN_OR_RETURN(behavior, ParseBehavior(value["behavior"]));
    }
    return AddSplit(R"([\p{P}$+<=>^`|~])", behavior, /*invert=*/false);
  }
  if (type == "Whitespace") {
    // The reference uses Rust's \w here, which has Join_Control.
    return AddSplit(R"([\w\p{Join_Control}]+|[^\w\s\p{Join_Control}]+)",
                    Behavior::kRemoved, /*invert=*/true);
  }
  if (type == "CharDelimiterSplit") {
    ASSIGN_OR_RETURN(const std::string_view delimiter,
                     value["delimiter"].String());
    if (delimiter.empty() || CountUtf8(delimiter) != 1) {
      return value["delimiter"].Mismatch("one character");
    }
    ASSIGN_OR_RETURN(Regex regex, Regex::CompileLiteral(delimiter));
    stages_.push_back(
        Split{std::move(regex), Behavior::kRemoved, /*invert=*/false});
    return absl::OkStatus();
  }
  if (type == "WhitespaceSplit") {
    return AddSplit(R"(\s)", Behavior::kRemoved, /*invert=*/false);
  }
  return value["type"].Mismatch(kSupportedTypes);
}

absl::Status PreTokenizer::AddByteLevel(const JsonValue& value) {
  ASSIGN_OR_RETURN(const bool add_prefix_space,
                   value["add_prefix_space"].BoolOr(true));
  ASSIGN_OR_RETURN(const bool use_regex, value["use_regex"].BoolOr(true));
  if (add_prefix_space) stages_.push_back(AddPrefixSpace{});
  if (use_regex) {
    RETURN_IF_ERROR(AddSplit(kByteLevelPattern, Behavior::kIsolated,
                             /*invert=*/false));
  }
  is_byte_level_ = true;
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddMetaspace(const JsonValue& value) {
  ASSIGN_OR_RETURN(const std::string_view replacement,
                   value["replacement"].String());
  if (replacement.empty() || CountUtf8(replacement) != 1) {
    return value["replacement"].Mismatch("one character");
  }
  // Older files say add_prefix_space instead of prepend_scheme.
  ASSIGN_OR_RETURN(const bool add_prefix_space,
                   value["add_prefix_space"].BoolOr(true));
  ASSIGN_OR_RETURN(
      const std::string_view scheme,
      value["prepend_scheme"].StringOr(add_prefix_space ? "always" : "never"));
  Metaspace::Prepend prepend = Metaspace::Prepend::kNever;
  if (scheme == "always") {
    prepend = Metaspace::Prepend::kAlways;
  } else if (scheme == "first") {
    prepend = Metaspace::Prepend::kFirst;
  } else if (scheme != "never") {
    return value["prepend_scheme"].Mismatch("always, first or never");
  }
  ASSIGN_OR_RETURN(const bool split, value["split"].BoolOr(true));
  ASSIGN_OR_RETURN(Regex space, Regex::CompileLiteral(" "));
  stages_.push_back(
      Metaspace{std::string(replacement), prepend, std::move(space)});
  if (split) {
    ASSIGN_OR_RETURN(Regex boundary, Regex::CompileLiteral(replacement));
    stages_.push_back(Split{std::move(boundary), Behavior::kMergedWithNext,
                            /*invert=*/false});
  }
  return absl::OkStatus();
}

absl::Status PreTokenizer::Cut(const Split& split, std::string_view text,
                               std::vector<std::string_view>* words) {
  std::vector<Regex::Part> parts;
  RETURN_IF_ERROR(split.pattern.Split(text, &parts));
  if (split.invert) {
    for (Regex::Part& part : parts) part.is_match = !part.is_match;
  }
  // Merging joins neighbours, so that words stay views of the text.
  std::vector<Regex::Part> joined;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Regex::Part& part = parts[i];
    const bool follows_match = i > 0 && parts[i - 1].is_match;
    bool join = false;
    switch (split.behavior) {
      case Behavior::kRemoved:
        if (part.is_match) continue;
        break;
      case Behavior::kIsolated:
        break;
      case Behavior::kMergedWithPrevious:
        join = i > 0 && part.is_match && !follows_match;
        break;
      case Behavior::kMergedWithNext:
        join = follows_match && !part.is_match;
        break;
      case Behavior::kContiguous:
        join = i > 0 && part.is_match == follows_match;
        break;
    }
    if (join) {
      joined.back().end = part.end;
    } else {
      joined.push_back(part);
    }
  }
  for (const Regex::Part& part : joined) {
    if (part.begin == part.end) continue;
    words->push_back(text.substr(part.begin, part.end - part.begin));
  }
  return absl::OkStatus();
}

absl::Status PreTokenizer::Apply(std::string_view text, bool at_text_start,
                                 const Sink& sink) const {
  if (text.empty()) return absl::OkStatus();
  // A short text may get a prefix for each of its words at every stage.
  size_t work_left =
      kMaxPreTokenizerGrowth * (stages_.size() + 1) * (text.size() + 16);
  return ApplyFrom(0, text, at_text_start, sink, &work_left);
}

absl::Status PreTokenizer::ApplyFrom(size_t stage_index, std::string_view text,
                                     bool at_text_start, const Sink& sink,
                                     size_t* work_left) const {
  if (text.size() > *work_left) {
    return ResourceExhausted(
        "the pre-tokenizer makes more than {} bytes of each byte of the text",
        kMaxPreTokenizerGrowth);
  }
  *work_left -= text.size();
  if (stage_index == stages_.size()) {
    sink(text);
    return absl::OkStatus();
  }
  const Stage& stage = stages_[stage_index];
  if (const auto* split = std::get_if<Split>(&stage)) {
    std::vector<std::string_view> words;
    RETURN_IF_ERROR(Cut(*split, text, &words));
    for (std::string_view word : words) {
      const bool at_start = at_text_start && word.data() == text.data();
      RETURN_IF_ERROR(
          ApplyFrom(stage_index + 1, word, at_start, sink, work_left));
    }
    return absl::OkStatus();
  }
  if (const auto* metaspace = std::get_if<Metaspace>(&stage)) {
    ASSIGN_OR_RETURN(std::string marked,
                     metaspace->space.ReplaceAll(
                         text, metaspace->replacement,
                         text.size() * metaspace->replacement.size()));
    const bool wants_prefix =
        metaspace->prepend == Metaspace::Prepend::kAlways ||
        (metaspace->prepend == Metaspace::Prepend::kFirst && at_text_start);
    if (wants_prefix && !marked.starts_with(metaspace->replacement)) {
      marked.insert(0, metaspace->replacement);
    }
    return ApplyFrom(stage_index + 1, marked, at_text_start, sink, work_left);
  }
  if (text.starts_with(' ')) {
    return ApplyFrom(stage_index + 1, text, at_text_start, sink, work_left);
  }
  std::string spaced = " ";
  spaced += text;
  return ApplyFrom(stage_index + 1, spaced, at_text_start, sink, work_left);
}

}  // namespace witan

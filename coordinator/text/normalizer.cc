#include "coordinator/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/base64.h"
#include "coordinator/text/unicode_versions.h"

namespace witan {

namespace {

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

int CombiningClass(utf8proc_int32_t character) {
  return utf8proc_get_property(character)->combining_class;
}

// Canonical ordering: marks between two starters by combining class, stably.
// (utf8proc's own ordering takes quadratic time on long runs.)
void OrderMarks(std::vector<utf8proc_int32_t>* characters) {
  auto begin = characters->begin();
  while (begin != characters->end()) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    auto end = begin;
    while (end != characters->end() && CombiningClass(*end) != 0) ++end;
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

std::optional<UnicodeForm> UnicodeFormOf(std::string_view type) {
  if (type == "NFC") return UnicodeForm::kNfc;
  if (type == "NFD") return UnicodeForm::kNfd;
  if (type == "NFKC") return UnicodeForm::kNfkc;
  if (type == "NFKD") return UnicodeForm::kNfkd;
  return std::nullopt;
}

// Control characters that the Nmt normalizer of the library tokenizers drops,
// and those that it takes for a space.
bool IsNmtRemoved(char32_t c) {
  return (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) ||
         c == 0x7F || c == 0x8F || c == 0x9F;
}
bool IsNmtSpace(char32_t c) {
  return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}

bool IsMark(char32_t character) {
  const utf8proc_category_t category =
      utf8proc_category(static_cast<utf8proc_int32_t>(character));
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

std::string_view StripSpace(std::string_view text, bool left, bool right) {
  size_t begin = 0;
  size_t end = 0;  // behind the last character that is no space
  bool has_begun = !left;
  for (size_t offset = 0; offset < text.size();) {
    const size_t at = offset;
    if (IsWhiteSpace(DecodeUtf8(text, &offset))) continue;
    if (!has_begun) begin = at;
    has_begun = true;
    end = offset;
  }
  if (!has_begun) return {};
  if (!right) end = text.size();
  return text.substr(begin, std::max(begin, end) - begin);
}

// As the library tokenizers has it: a grapheme of less than 6 bytes becomes
// what the shortest rule that it begins with says, whatever else it holds;
// otherwise each of its characters does.
std::string ApplyByGrapheme(const PrecompiledCharsmap& charsmap,
                            std::string_view text) {
  constexpr size_t kReplacedWholeBytes = 5;
  std::string result;
  result.reserve(text.size());
  const auto apply_to = [&](std::string_view part) {
    const auto match = charsmap.Shortest(part);
    if (match.has_value()) result += match->replacement;
    return match.has_value();
  };
  size_t begin = 0;
  // The caller refuses what is longer.
  while (begin < text.size() && result.size() <= kMaxEncodeTextBytes) {
    size_t end = begin;
    char32_t previous = DecodeUtf8(text, &end);
    utf8proc_int32_t state = 0;
    while (end < text.size()) {
      size_t next_end = end;
      const char32_t next = DecodeUtf8(text, &next_end);
      if (utf8proc_grapheme_break_stateful(
              static_cast<utf8proc_int32_t>(previous),
              static_cast<utf8proc_int32_t>(next), &state)) {
        break;
      }
      previous = next;
      end = next_end;
    }
    const std::string_view grapheme = text.substr(begin, end - begin);
    begin = end;
    if (grapheme.size() <= kReplacedWholeBytes && apply_to(grapheme)) continue;
    for (size_t offset = 0; offset < grapheme.size();) {
      const size_t at = offset;
      DecodeUtf8(grapheme, &offset);
      const std::string_view character = grapheme.substr(at, offset - at);
      if (!apply_to(character)) result += character;
    }
  }
  return result;
}

}  // namespace

namespace {

// Appends a text without unknown characters.
void AppendNormalized(std::string_view text, UnicodeForm form,
                      std::string* result) {
  if (IsAscii(text)) {
    *result += text;
    return;
  }
  const bool compose = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  const bool compatible =
      form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                     (compatible ? UTF8PROC_COMPAT : 0));
  // The longest decomposition of one character has 18.
  constexpr utf8proc_ssize_t kMaxDecomposed = 32;
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  size_t offset = 0;
  while (offset < text.size()) {
    const char32_t character = DecodeUtf8(text, &offset);
    utf8proc_int32_t decomposed[kMaxDecomposed];
    int boundary_state = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(character), decomposed, kMaxDecomposed,
        options, &boundary_state);
    WITAN_CHECK(count > 0 && count <= kMaxDecomposed,
                "decomposition of U+{:04X} gave {}",
                static_cast<uint32_t>(character), count);
    characters.insert(characters.end(), decomposed, decomposed + count);
  }
  OrderMarks(&characters);
  size_t num_characters = characters.size();
  if (compose) {
    const utf8proc_ssize_t count = utf8proc_normalize_utf32(
        characters.data(), static_cast<utf8proc_ssize_t>(num_characters),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    WITAN_CHECK(count >= 0, "composition gave {}", count);
    num_characters = static_cast<size_t>(count);
  }
  for (size_t i = 0; i < num_characters; ++i) {
    AppendUtf8(static_cast<char32_t>(characters[i]), result);
  }
}

}  // namespace

std::string NormalizeUnicode(std::string_view text, UnicodeForm form) {
  std::string result;
  result.reserve(text.size());
  // An unknown character stays where it is and what it is.
  size_t begin = 0;
  for (size_t offset = 0; offset < text.size();) {
    const size_t at = offset;
    if (!IsUnknownToNormalization(DecodeUtf8(text, &offset))) continue;
    AppendNormalized(text.substr(begin, at - begin), form, &result);
    result += text.substr(at, offset - at);
    begin = offset;
  }
  AppendNormalized(text.substr(begin), form, &result);
  return result;
}

absl::StatusOr<Regex> ParsePattern(const JsonValue& value) {
  const JsonValue literal = value["String"];
  const JsonValue pattern = value["Regex"];
  if (literal.exists() == pattern.exists()) {
    return value.Mismatch(R"({"String": TEXT} or {"Regex": PATTERN})");
  }
  const JsonValue& given = literal.exists() ? literal : pattern;
  ASSIGN_OR_RETURN(const std::string_view text, given.String());
  if (text.empty()) return given.Mismatch("a pattern that is not empty");
  absl::StatusOr<Regex> regex =
      literal.exists() ? Regex::CompileLiteral(text) : Regex::Compile(text);
  if (!regex.ok()) return Annotate(regex.status(), given.path());
  return regex;
}

absl::StatusOr<Normalizer> Normalizer::Parse(const JsonValue& value) {
  Normalizer normalizer;
  if (value.exists()) RETURN_IF_ERROR(normalizer.AddSteps(value));
  return normalizer;
}

absl::Status Normalizer::AddSteps(const JsonValue& value) {
  if (steps_.size() >= kMaxTokenizerStages) {
    return InvalidArgument("tokenizer.json: normalizer has more than {} stages",
                           kMaxTokenizerStages);
  }
  ASSIGN_OR_RETURN(const std::string_view type, value["type"].String());
  if (const auto form = UnicodeFormOf(type)) {
    steps_.push_back(Unicode{*form});
    return absl::OkStatus();
  }
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const auto members, value["normalizers"].Array());
    for (const JsonValue& member : members) RETURN_IF_ERROR(AddSteps(member));
    return absl::OkStatus();
  }
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(const std::string_view text, value["prepend"].String());
    steps_.push_back(Prepend{std::string(text)});
    return absl::OkStatus();
  }
  if (type == "Replace") {
    ASSIGN_OR_RETURN(Regex pattern, ParsePattern(value["pattern"]));
    ASSIGN_OR_RETURN(const std::string_view text, value["content"].String());
    steps_.push_back(Replace{std::move(pattern), std::string(text)});
    return absl::OkStatus();
  }
  if (type == "Lowercase" || type == "Nmt" || type == "StripAccents") {
    steps_.push_back(type == "Lowercase" ? Simple::kLowercase
                     : type == "Nmt"     ? Simple::kNmt
                                         : Simple::kStripAccents);
    return absl::OkStatus();
  }
  if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, value["strip_left"].BoolOr(true));
    ASSIGN_OR_RETURN(const bool right, value["strip_right"].BoolOr(true));
    steps_.push_back(Strip{left, right});
    return absl::OkStatus();
  }
  if (type == "Precompiled") return AddPrecompiled(value);
  return value["type"].Mismatch(
      "NFC, NFD, NFKC, NFKD, Lowercase, Nmt, Precompiled, Prepend, Replace, "
      "Strip, StripAccents or Sequence");
}

absl::Status Normalizer::AddPrecompiled(const JsonValue& value) {
  const JsonValue given = value["precompiled_charsmap"];
  // Some files have the step without any rule.
  ASSIGN_OR_RETURN(const std::string_view text, given.StringOr(""));
  if (text.empty()) return absl::OkStatus();
  const std::optional<std::string> blob = DecodeBase64(text);
  if (!blob.has_value()) return given.Mismatch("base64");
  absl::StatusOr<PrecompiledCharsmap> charsmap =
      PrecompiledCharsmap::Parse(*blob);
  if (!charsmap.ok()) return Annotate(charsmap.status(), given.path());
  steps_.push_back(*std::move(charsmap));
  return absl::OkStatus();
}

Normalizer Normalizer::FromSentencePiece(SentencePieceNormalizer rules,
                                         bool prefixes_start_only) {
  Normalizer normalizer;
  normalizer.steps_.push_back(
      SentencePiece{std::move(rules), prefixes_start_only});
  return normalizer;
}

std::string Normalizer::ApplySimple(Simple rule, std::string_view text) {
  std::string result;
  result.reserve(text.size());
  size_t offset = 0;
  while (offset < text.size()) {
    const char32_t character = DecodeUtf8(text, &offset);
    switch (rule) {
      case Simple::kLowercase:
        // The one character whose small form is two.
        if (character == 0x130) {
          result += "i\xCC\x87";
        } else {
          AppendUtf8(static_cast<char32_t>(utf8proc_tolower(
                         static_cast<utf8proc_int32_t>(character))),
                     &result);
        }
        break;
      case Simple::kNmt:
        if (IsNmtRemoved(character)) break;
        AppendUtf8(IsNmtSpace(character) ? U' ' : character, &result);
        break;
      case Simple::kStripAccents:
        if (!IsMark(character)) AppendUtf8(character, &result);
        break;
    }
  }
  return result;
}

absl::StatusOr<std::string> Normalizer::ApplyStep(const Step& step,
                                                  std::string text,
                                                  bool at_text_start) {
  if (const auto* unicode = std::get_if<Unicode>(&step)) {
    return NormalizeUnicode(text, unicode->form);
  }
  if (const auto* prepend = std::get_if<Prepend>(&step)) {
    if (text.empty()) return text;
    return prepend->text + text;
  }
  if (const auto* replace = std::get_if<Replace>(&step)) {
    return replace->pattern.ReplaceAll(text, replace->replacement,
                                       kMaxEncodeTextBytes);
  }
  if (const auto* simple = std::get_if<Simple>(&step)) {
    return ApplySimple(*simple, text);
  }
  if (const auto* strip = std::get_if<Strip>(&step)) {
    return std::string(StripSpace(text, strip->left, strip->right));
  }
  if (const auto* charsmap = std::get_if<PrecompiledCharsmap>(&step)) {
    return ApplyByGrapheme(*charsmap, text);
  }
  const auto& pieces = std::get<SentencePiece>(step);
  return pieces.rules.Apply(text, at_text_start || !pieces.prefixes_start_only);
}

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text,
                                              bool at_text_start) const {
  std::string result(text);
  for (const Step& step : steps_) {
    ASSIGN_OR_RETURN(result, ApplyStep(step, std::move(result), at_text_start));
    if (result.size() > kMaxEncodeTextBytes) {
      return ResourceExhausted("the normalizer makes more than {} bytes",
                               kMaxEncodeTextBytes);
    }
  }
  return result;
}

}  // namespace witan

#include "coordinator/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

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

}  // namespace

std::string NormalizeUnicode(std::string_view text, UnicodeForm form) {
  if (IsAscii(text)) return std::string(text);
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
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < num_characters; ++i) {
    AppendUtf8(static_cast<char32_t>(characters[i]), &result);
  }
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
  return value["type"].Mismatch(
      "NFC, NFD, NFKC, NFKD, Prepend, Replace or Sequence");
}

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text) const {
  std::string result(text);
  for (const auto& step : steps_) {
    if (const auto* unicode = std::get_if<Unicode>(&step)) {
      result = NormalizeUnicode(result, unicode->form);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (result.empty()) continue;
      if (prepend->text.size() + result.size() > kMaxEncodeTextBytes) {
        return ResourceExhausted("the normalizer makes more than {} bytes",
                                 kMaxEncodeTextBytes);
      }
      result.insert(0, prepend->text);
    } else {
      const auto& replace = std::get<Replace>(step);
      ASSIGN_OR_RETURN(result,
                       replace.pattern.ReplaceAll(result, replace.replacement,
                                                  kMaxEncodeTextBytes));
    }
  }
  return result;
}

}  // namespace witan

#include "coordinator/text/decoder.h"

#include <limits>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/normalizer.h"

namespace witan {

namespace {

constexpr std::string_view kSupportedTypes =
    "ByteLevel alone, or a Sequence of Replace or Metaspace, ByteFallback, "
    "Fuse and Strip in this order";

// The only order in which the rules can be applied token by token.
int OrderOf(std::string_view type) {
  if (type == "Replace" || type == "Metaspace") return 1;
  if (type == "ByteFallback") return 2;
  if (type == "Fuse") return 3;
  if (type == "Strip") return 4;
  return 0;
}

}  // namespace

absl::StatusOr<Decoder> Decoder::Parse(const JsonValue& value) {
  if (!value.exists()) return value.Mismatch(kSupportedTypes);
  Decoder decoder;
  int last_order = 0;
  RETURN_IF_ERROR(decoder.AddSteps(value, &last_order));
  return decoder;
}

Decoder Decoder::ByteLevel() {
  Decoder decoder;
  decoder.is_byte_level_ = true;
  return decoder;
}

Decoder Decoder::SentencePiece(int num_stripped_at_start) {
  Decoder decoder;
  decoder.byte_fallback_ = true;
  decoder.num_stripped_at_start_ = num_stripped_at_start;
  decoder.stripped_text_ = " ";
  decoder.strips_whole_pieces_ = true;
  return decoder;
}

absl::Status Decoder::AddSteps(const JsonValue& value, int* last_order) {
  const JsonValue type_value = value["type"];
  ASSIGN_OR_RETURN(const std::string_view type, type_value.String());
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const auto members, value["decoders"].Array());
    for (const JsonValue& member : members) {
      RETURN_IF_ERROR(AddSteps(member, last_order));
    }
    return absl::OkStatus();
  }
  if (is_byte_level_) return type_value.Mismatch(kSupportedTypes);
  if (type == "ByteLevel" && *last_order == 0) {
    is_byte_level_ = true;
    return absl::OkStatus();
  }
  const int order = OrderOf(type);
  const bool is_in_order = order > 0 && order >= *last_order;
  const bool strips_one_token = type == "Strip" && *last_order < 3;
  if (!is_in_order || strips_one_token) {
    return type_value.Mismatch(kSupportedTypes);
  }
  *last_order = order;
  if (type == "Metaspace") return AddMetaspace(value);
  if (type == "Strip") return AddStrip(value);
  if (type == "ByteFallback") byte_fallback_ = true;
  if (type == "Replace") {
    if (replacements_.size() >= kMaxTokenizerStages) {
      return InvalidArgument("tokenizer.json: decoder has more than {} stages",
                             kMaxTokenizerStages);
    }
    ASSIGN_OR_RETURN(Regex pattern, ParsePattern(value["pattern"]));
    ASSIGN_OR_RETURN(const std::string_view text, value["content"].String());
    replacements_.push_back({std::move(pattern), std::string(text)});
  }
  return absl::OkStatus();
}

absl::Status Decoder::AddMetaspace(const JsonValue& value) {
  if (!replacements_.empty()) return value.Mismatch("Metaspace to be first");
  ASSIGN_OR_RETURN(const std::string_view replacement,
                   value["replacement"].String());
  if (replacement.empty() || CountUtf8(replacement) != 1) {
    return value["replacement"].Mismatch("one character");
  }
  ASSIGN_OR_RETURN(Regex pattern, Regex::CompileLiteral(replacement));
  replacements_.push_back({std::move(pattern), " "});
  ASSIGN_OR_RETURN(const bool add_prefix_space,
                   value["add_prefix_space"].BoolOr(true));
  ASSIGN_OR_RETURN(
      const std::string_view scheme,
      value["prepend_scheme"].StringOr(add_prefix_space ? "always" : "never"));
  if (scheme != "never") dropped_from_first_token_ = replacement;
  return absl::OkStatus();
}

absl::Status Decoder::AddStrip(const JsonValue& value) {
  if (num_stripped_at_start_ > 0) return value.Mismatch("at most one Strip");
  ASSIGN_OR_RETURN(const std::string_view content, value["content"].String());
  if (content.empty() || CountUtf8(content) != 1) {
    return value["content"].Mismatch("one character");
  }
  stripped_text_ = content;
  ASSIGN_OR_RETURN(
      const int64_t start,
      value["start"].Integer(0, std::numeric_limits<int32_t>::max()));
  num_stripped_at_start_ = static_cast<int>(start);
  // Stripping at the end would hold text back until the end is known.
  return value["stop"].Integer(0, 0).status();
}

absl::StatusOr<std::string> Decoder::PieceOf(std::string_view spelling) const {
  if (is_byte_level_) {
    std::optional<std::string> bytes = BytesOfByteLevelToken(spelling);
    return bytes.has_value() ? *std::move(bytes) : std::string(spelling);
  }
  std::string piece(spelling);
  for (const Replace& replace : replacements_) {
    ASSIGN_OR_RETURN(piece, replace.pattern.ReplaceAll(
                                piece, replace.replacement,
                                spelling.size() + kMaxTokenGrowthBytes));
  }
  return piece;
}

}  // namespace witan

#include "coordinator/text/json_value.h"

#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

JsonValue::JsonValue(simdjson::dom::element element, std::string path)
    : path_(std::move(path)) {
  if (!element.is_null()) element_ = element;
}

bool JsonValue::is_string() const { return exists() && element_->is_string(); }
bool JsonValue::is_array() const { return exists() && element_->is_array(); }
bool JsonValue::is_object() const { return exists() && element_->is_object(); }

JsonValue JsonValue::operator[](std::string_view key) const {
  JsonValue member;
  member.path_ =
      fmt::format("{}{}{}", path_, path_.ends_with(':') ? " " : ".", key);
  simdjson::dom::element element;
  if (is_object() && element_->at_key(key).get(element) == simdjson::SUCCESS &&
      !element.is_null()) {
    member.element_ = element;
  }
  return member;
}

absl::StatusOr<std::string_view> JsonValue::String() const {
  std::string_view value;
  if (!exists() || element_->get(value) != simdjson::SUCCESS) {
    return Mismatch("a string");
  }
  return value;
}

absl::StatusOr<bool> JsonValue::Bool() const {
  bool value = false;
  if (!exists() || element_->get(value) != simdjson::SUCCESS) {
    return Mismatch("true or false");
  }
  return value;
}

absl::StatusOr<int64_t> JsonValue::Integer(int64_t min, int64_t max) const {
  int64_t value = 0;
  if (!exists() || element_->get(value) != simdjson::SUCCESS || value < min ||
      value > max) {
    return Mismatch(fmt::format("an integer from {} to {}", min, max));
  }
  return value;
}

absl::StatusOr<std::string_view> JsonValue::StringOr(
    std::string_view absent) const {
  if (!exists()) return absent;
  return String();
}

absl::StatusOr<bool> JsonValue::BoolOr(bool absent) const {
  if (!exists()) return absent;
  return Bool();
}

absl::StatusOr<std::vector<JsonValue>> JsonValue::Array() const {
  simdjson::dom::array array;
  if (!exists() || element_->get(array) != simdjson::SUCCESS) {
    return Mismatch("an array");
  }
  std::vector<JsonValue> values;
  for (simdjson::dom::element element : array) {
    values.emplace_back(element, fmt::format("{}[{}]", path_, values.size()));
  }
  return values;
}

absl::Status JsonValue::Mismatch(std::string_view expected) const {
  if (!exists()) {
    return InvalidArgument("{}: missing; expected {}", path_, expected);
  }
  std::string shown = simdjson::minify(*element_);
  if (shown.size() > kMaxShownValueBytes) {
    // Cut where a character begins.
    size_t end = kMaxShownValueBytes;
    while (end > 0 && (shown[end] & 0xC0) == 0x80) --end;
    shown = shown.substr(0, end) + "...";
  }
  return InvalidArgument("{}: got {}; expected {}", path_, shown, expected);
}

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text,
                                                 std::string_view name) {
  JsonDocument document;
  document.name_ = name;
  simdjson::error_code error =
      document.parser_->allocate(text.size(), kMaxJsonDepth);
  if (error == simdjson::SUCCESS) {
    error = document.parser_->parse(simdjson::padded_string(text))
                .get(document.root_);
  }
  if (error == simdjson::DEPTH_ERROR) {
    return InvalidArgument("{}: JSON nested deeper than {} levels", name,
                           kMaxJsonDepth);
  }
  if (error != simdjson::SUCCESS) {
    return InvalidArgument("{}: not valid JSON: {}", name,
                           simdjson::error_message(error));
  }
  return document;
}

}  // namespace witan

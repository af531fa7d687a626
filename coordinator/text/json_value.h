#ifndef WITAN_COORDINATOR_TEXT_JSON_VALUE_H_
#define WITAN_COORDINATOR_TEXT_JSON_VALUE_H_

// Reading of untrusted JSON files with errors that say where: every value
// knows its path ("tokenizer.json: model.merges[3]").

#include <absl/status/statusor.h>
#include <simdjson.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// A JSON value inside a JsonDocument, or the absence of one. `null` counts as
// absent everywhere. Valid as long as the document.
class JsonValue {
 public:
  JsonValue() = default;
  JsonValue(simdjson::dom::element element, std::string path);

  bool exists() const { return element_.has_value(); }
  bool is_string() const;
  bool is_array() const;
  bool is_object() const;
  const std::string& path() const { return path_; }
  // For loops over very many values. REQUIRES: exists().
  simdjson::dom::element element() const { return *element_; }

  // The member `key`; absent when this is absent or not an object.
  JsonValue operator[](std::string_view key) const;

  // InvalidArgument, naming the path, when absent or of another type.
  absl::StatusOr<std::string_view> String() const;
  absl::StatusOr<bool> Bool() const;
  absl::StatusOr<int64_t> Integer(int64_t min, int64_t max) const;
  // These take `absent` when there is no value.
  absl::StatusOr<std::string_view> StringOr(std::string_view absent) const;
  absl::StatusOr<bool> BoolOr(bool absent) const;

  absl::StatusOr<std::vector<JsonValue>> Array() const;

  // "PATH: got VALUE; expected EXPECTED".
  absl::Status Mismatch(std::string_view expected) const;

 private:
  std::optional<simdjson::dom::element> element_;
  std::string path_;
};

// Owns a parsed file.
class JsonDocument {
 public:
  // `name` is the file's name in errors. Nesting is limited to kMaxJsonDepth.
  static absl::StatusOr<JsonDocument> Parse(std::string_view text,
                                            std::string_view name);
  JsonValue root() const { return JsonValue(root_, name_ + ":"); }

 private:
  JsonDocument() = default;
  // Elements point into the parser, which therefore must not move.
  std::unique_ptr<simdjson::dom::parser> parser_ =
      std::make_unique<simdjson::dom::parser>();
  simdjson::dom::element root_;
  std::string name_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_JSON_VALUE_H_

#include "model/json_object.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

using Json = nlohmann::json;

// Builds the document and refuses what nlohmann::json would let pass.
class ObjectBuilder : public Json::json_sax_t {
 public:
  ObjectBuilder(std::string_view name, std::string_view text)
      : name_(name), text_(text) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(int64_t value) override { return Add(value); }
  bool number_unsigned(uint64_t value) override { return Add(value); }
  bool number_float(double value, const std::string&) override {
    return Add(value);
  }
  bool string(std::string& value) override { return Add(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(Json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_array() override { return Close(); }
  bool key(std::string& key) override {
    key_ = std::move(key);
    if (!open_.back()->contains(key_)) return true;
    error_ = InvalidArgument("{}: the key {} occurs twice; keep one", name_,
                             Quoted(key_));
    return false;
  }
  bool parse_error(size_t position, const std::string&,
                   const Json::exception&) override {
    const size_t end = std::min(position, text_.size());
    const auto line =
        1 +
        std::count(text_.begin(), text_.begin() + static_cast<long>(end), '\n');
    error_ = InvalidArgument(
        "{}: not valid JSON at line {} (byte {} of {}){}; fix the file or "
        "download it again",
        name_, line, position, text_.size(),
        key_.empty() ? "" : fmt::format(", at or after {}", Quoted(key_)));
    return false;
  }

  absl::StatusOr<Json> Result() && {
    if (!error_.ok()) return error_;
    return std::move(root_);
  }

 private:
  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& place = parent[key_];
    place = std::move(value);
    return &place;
  }
  bool Add(Json value) {
    if (open_.empty()) return NotAnObject();
    Place(std::move(value));
    return true;
  }
  bool Open(Json value) {
    if (open_.empty() && !value.is_object()) return NotAnObject();
    if (open_.size() >= kMaxJsonDepth) {
      error_ = InvalidArgument("{}: nested deeper than {} levels", name_,
                               kMaxJsonDepth);
      return false;
    }
    // The parent cannot grow, and so cannot move its children, before this
    // child is closed.
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }
  bool NotAnObject() {
    error_ = InvalidArgument("{}: must be a JSON object, {{...}}", name_);
    return false;
  }

  const std::string_view name_;
  const std::string_view text_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view name,
                                     std::string_view text) {
  ObjectBuilder builder(name, text);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return std::move(builder).Result();
}

std::string Quoted(std::string_view text) {
  size_t num_shown = std::min(text.size(), kMaxQuotedBytes);
  const auto quoted = [&] {
    return Json(std::string(text.substr(0, num_shown)))
        .dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  };
  // An escape takes up to six bytes for one.
  std::string shown = quoted();
  while (shown.size() > 2 * kMaxQuotedBytes) {
    num_shown /= 2;
    shown = quoted();
  }
  return shown + (num_shown < text.size()
                      ? fmt::format("... ({} bytes)", text.size())
                      : "");
}

absl::StatusOr<Json> ParseConfigFile(std::string_view name,
                                     const std::string& text) {
  if (static_cast<int64_t>(text.size()) > kMaxConfigFileBytes) {
    return InvalidArgument("{}: {} bytes long, at most {} are allowed", name,
                           text.size(), kMaxConfigFileBytes);
  }
  return ParseJsonObject(name, text);
}

std::string DescribeJson(const Json& value) {
  // Containers are not dumped: dump() recurses, and they may be long.
  if (value.is_object()) {
    return fmt::format("an object of {} fields", value.size());
  }
  if (value.is_array()) {
    return fmt::format("a list of {} values", value.size());
  }
  if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
  return value.dump();
}

}  // namespace witan

// Values as text: Python's str() and repr(), and json.dumps().

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "coordinator/text/jinja_text.h"
#include "coordinator/text/jinja_value.h"

namespace witan::jinja {

namespace {

absl::Status Append(std::string_view text, Budget* budget, std::string* out) {
  // Small parts cost as well, or empty lists would be free.
  RETURN_IF_ERROR(budget->Work(text.size() + sizeof(Value)));
  *out += text;
  return absl::OkStatus();
}

// Appends the text of everything but containers; false for those.
bool FormatScalar(const Value& value, std::string* out) {
  if (value.is_undefined()) return true;
  if (value.is_none()) {
    *out = "None";
  } else if (const bool* boolean = value.As<bool>()) {
    *out = *boolean ? "True" : "False";
  } else if (const int64_t* integer = value.As<int64_t>()) {
    *out = fmt::format("{}", *integer);
  } else if (const double* number = value.As<double>()) {
    *out = FormatFloat(*number);
  } else {
    return false;
  }
  return true;
}

absl::Status AppendRepr(const Value& value, Budget* budget, std::string* out);

absl::Status AppendList(const Value& value, Budget* budget, std::string* out) {
  const ListData& list = *value.list();
  if (list.kind == ListKind::kRange) {
    const std::string step =
        list.step == 1 ? "" : fmt::format(", {}", list.step);
    return Append(fmt::format("range({}, {}{})", list.start, list.stop, step),
                  budget, out);
  }
  std::string_view begin = "[";
  std::string_view end = "]";
  if (list.is_tuple()) {
    begin = "(";
    end = list.items.size() == 1 ? ",)" : ")";
  } else if (!list.is_list()) {  // a view: dict_keys(['a'])
    RETURN_IF_ERROR(Append(value.type_name(), budget, out));
    begin = "([";
    end = "])";
  }
  RETURN_IF_ERROR(Append(begin, budget, out));
  std::string_view separator;
  for (const Value& item : list.items) {
    RETURN_IF_ERROR(Append(separator, budget, out));
    separator = ", ";
    RETURN_IF_ERROR(AppendRepr(item, budget, out));
  }
  return Append(end, budget, out);
}

absl::Status AppendRepr(const Value& value, Budget* budget, std::string* out) {
  std::string scalar;
  if (value.is_undefined()) return Append("Undefined", budget, out);
  if (FormatScalar(value, &scalar)) return Append(scalar, budget, out);
  if (const std::string* text = value.text()) {
    return Append(
        value.is_safe() ? "Markup(" + Quote(*text) + ")" : Quote(*text), budget,
        out);
  }
  if (value.list() != nullptr) return AppendList(value, budget, out);
  std::string_view separator;
  if (const DictData* dict = value.dict()) {
    RETURN_IF_ERROR(Append("{", budget, out));
    for (const auto& [key, entry] : dict->entries) {
      RETURN_IF_ERROR(Append(separator, budget, out));
      separator = ", ";
      RETURN_IF_ERROR(AppendRepr(key, budget, out));
      RETURN_IF_ERROR(Append(": ", budget, out));
      RETURN_IF_ERROR(AppendRepr(entry, budget, out));
    }
    return Append("}", budget, out);
  }
  return InvalidArgument("a value of type {} has no text", value.type_name());
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget* budget, std::string* out)
      : style_(style), budget_(budget), out_(out) {}

  absl::Status Write(const Value& value, int64_t level) {
    if (value.is_none()) return Put("null");
    if (const bool* boolean = value.As<bool>()) {
      return Put(*boolean ? "true" : "false");
    }
    if (const double* number = value.As<double>()) return PutFloat(*number);
    if (const int64_t* integer = value.As<int64_t>()) {
      return Put(fmt::format("{}", *integer));
    }
    if (const std::string* text = value.text()) {
      return Put(QuoteJson(*text, style_.ensure_ascii));
    }
    if (const ListData* list = value.list();
        list != nullptr && (list->is_list() || list->is_tuple())) {
      return WriteList(list->items, level);
    }
    if (value.dict() != nullptr) return WriteDict(*value.dict(), level);
    return InvalidArgument("a value of type {} cannot be written as JSON",
                           value.type_name());
  }

 private:
  absl::Status Put(std::string_view text) {
    return Append(text, budget_, out_);
  }

  absl::Status PutFloat(double number) {
    if (std::isnan(number)) return Put("NaN");
    if (std::isinf(number)) return Put(number > 0 ? "Infinity" : "-Infinity");
    return Put(FormatFloat(number));
  }

  absl::Status BreakLine(int64_t level) {
    if (!style_.indent.has_value()) return absl::OkStatus();
    RETURN_IF_ERROR(
        budget_->Work(style_.indent->size() * static_cast<size_t>(level) + 1));
    *out_ += '\n';
    for (int64_t i = 0; i < level; ++i) *out_ += *style_.indent;
    return absl::OkStatus();
  }

  absl::Status WriteList(const std::vector<Value>& items, int64_t level) {
    if (items.empty()) return Put("[]");
    RETURN_IF_ERROR(Put("["));
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) RETURN_IF_ERROR(Put(style_.item_separator));
      RETURN_IF_ERROR(BreakLine(level + 1));
      RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    RETURN_IF_ERROR(BreakLine(level));
    return Put("]");
  }

  absl::StatusOr<std::string> KeyText(const Value& key) {
    if (key.text() != nullptr) return *key.text();
    if (key.list() != nullptr || key.dict() != nullptr) {
      return InvalidArgument("a JSON key cannot be a {}", key.type_name());
    }
    std::string text;
    RETURN_IF_ERROR(JsonWriter(style_, budget_, &text).Write(key, 0));
    return text;
  }

  // Python sorts before it makes texts of the keys: 9 comes before 10.
  absl::Status SortByKey(std::vector<std::pair<Value, Value>>* entries) {
    absl::Status failure;
    std::stable_sort(
        entries->begin(), entries->end(), [&](const auto& a, const auto& b) {
          const absl::StatusOr<int> order = Compare(a.first, b.first, budget_);
          failure.Update(order.status());
          return failure.ok() && *order < 0;
        });
    return failure;
  }

  absl::Status WriteDict(const DictData& dict, int64_t level) {
    if (dict.entries.empty()) return Put("{}");
    std::vector<std::pair<Value, Value>> sorted;
    if (style_.sort_keys) {
      sorted = dict.entries;
      RETURN_IF_ERROR(SortByKey(&sorted));
    }
    const auto& entries = style_.sort_keys ? sorted : dict.entries;
    RETURN_IF_ERROR(Put("{"));
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) RETURN_IF_ERROR(Put(style_.item_separator));
      RETURN_IF_ERROR(BreakLine(level + 1));
      ASSIGN_OR_RETURN(const std::string key, KeyText(entries[i].first));
      RETURN_IF_ERROR(Put(QuoteJson(key, style_.ensure_ascii)));
      RETURN_IF_ERROR(Put(style_.key_separator));
      RETURN_IF_ERROR(Write(entries[i].second, level + 1));
    }
    RETURN_IF_ERROR(BreakLine(level));
    return Put("}");
  }

  const JsonStyle& style_;
  Budget* budget_;
  std::string* out_;
};

}  // namespace

absl::StatusOr<std::string> ToText(const Value& value, Budget* budget) {
  std::string text;
  if (value.text() != nullptr) {
    text = *value.text();
    RETURN_IF_ERROR(budget->Work(text.size()));
  } else if (!FormatScalar(value, &text)) {
    RETURN_IF_ERROR(AppendRepr(value, budget, &text));
  }
  return text;
}

absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style,
                                   Budget* budget) {
  std::string text;
  RETURN_IF_ERROR(JsonWriter(style, budget, &text).Write(value, 0));
  return text;
}

}  // namespace witan::jinja

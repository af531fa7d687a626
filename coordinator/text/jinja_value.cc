#include "coordinator/text/jinja_value.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

absl::Status Budget::Step() {
  if (--steps_left_ >= 0) return absl::OkStatus();
  return ResourceExhausted("the template needs more than {} steps",
                           kMaxTemplateSteps);
}

absl::Status Budget::Work(size_t num_bytes) {
  bytes_left_ -= static_cast<int64_t>(num_bytes);
  if (bytes_left_ >= 0) return absl::OkStatus();
  return ResourceExhausted("the template works through more than {} bytes",
                           kMaxTemplateWorkBytes);
}

namespace {

// The depth that a container of `value` has at least.
absl::StatusOr<int> DepthAround(const Value& value) {
  if (value.name_space() != nullptr || value.loop() != nullptr ||
      value.As<MacroRef>() != nullptr || value.method() != nullptr) {
    return InvalidArgument("a {} cannot be stored in a list or dict",
                           value.type_name());
  }
  const int depth = value.depth() + 1;
  if (depth > kMaxTemplateDepth) {
    return InvalidArgument("values nested deeper than {} levels",
                           kMaxTemplateDepth);
  }
  return depth;
}

}  // namespace

absl::StatusOr<Value> Value::List(std::vector<Value> items, ListKind kind) {
  auto data = std::make_shared<ListData>();
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const int depth, DepthAround(item));
    data->depth = std::max(data->depth, depth);
  }
  data->items = std::move(items);
  data->kind = kind;
  Value value;
  value.data_ = std::shared_ptr<const ListData>(std::move(data));
  return value;
}

Value Value::Safe(std::string text) {
  Value value;
  value.data_ = SafeText{std::make_shared<const std::string>(std::move(text))};
  return value;
}

Value Value::Range(int64_t start, int64_t stop, int64_t step) {
  auto data = std::make_shared<ListData>();
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    data->items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  data->kind = ListKind::kRange;
  data->start = start;
  data->stop = stop;
  data->step = step;
  Value value;
  value.data_ = std::shared_ptr<const ListData>(std::move(data));
  return value;
}

absl::StatusOr<Value> Value::Iterator(std::vector<Value> items,
                                      absl::Status end) {
  auto data = std::make_shared<IteratorData>();
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const int depth, DepthAround(item));
    data->depth = std::max(data->depth, depth);
  }
  data->items = std::move(items);
  data->end = std::move(end);
  Value value;
  value.data_ = std::move(data);
  return value;
}

absl::StatusOr<Value> Value::Dict(
    std::vector<std::pair<Value, Value>> entries) {
  auto data = std::make_shared<DictData>();
  for (const auto& [key, entry] : entries) {
    ASSIGN_OR_RETURN(const int depth, DepthAround(entry));
    data->depth = std::max(data->depth, depth);
  }
  data->entries = std::move(entries);
  Value value;
  value.data_ = std::shared_ptr<const DictData>(std::move(data));
  return value;
}

absl::StatusOr<Value> Value::FromJson(const nlohmann::ordered_json& json,
                                      int depth) {
  if (depth > kMaxTemplateDepth) {
    return InvalidArgument("values nested deeper than {} levels",
                           kMaxTemplateDepth);
  }
  if (json.is_null()) return Value();
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number_float()) return Value(json.get<double>());
  if (json.is_number_unsigned() &&
      json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return InvalidArgument("integer {} is beyond 64 bits",
                           json.get<uint64_t>());
  }
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    if (!IsValidUtf8(text)) {
      return InvalidArgument("text is not valid UTF-8 at byte {}",
                             ValidUtf8Prefix(text));
    }
    return Value(text);
  }
  if (json.is_array()) {
    std::vector<Value> items;
    items.reserve(json.size());
    for (const auto& item : json) {
      ASSIGN_OR_RETURN(Value value, FromJson(item, depth + 1));
      items.push_back(std::move(value));
    }
    return List(std::move(items));
  }
  if (!json.is_object()) return InvalidArgument("not a JSON value");
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, item] : json.items()) {
    if (!IsValidUtf8(key)) return InvalidArgument("a key is not valid UTF-8");
    ASSIGN_OR_RETURN(Value value, FromJson(item, depth + 1));
    entries.emplace_back(Value(key), std::move(value));
  }
  return Dict(std::move(entries));
}

const std::string* Value::text() const {
  if (const SafeText* safe = As<SafeText>()) return safe->text.get();
  const auto* data = As<std::shared_ptr<const std::string>>();
  return data == nullptr ? nullptr : data->get();
}
const ListData* Value::list() const {
  const auto* data = As<std::shared_ptr<const ListData>>();
  return data == nullptr ? nullptr : data->get();
}
const ListData* Value::sequence() const {
  const ListData* data = list();
  if (data == nullptr) return nullptr;
  return data->is_list() || data->is_tuple() || data->kind == ListKind::kRange
             ? data
             : nullptr;
}
IteratorData* Value::iterator() const {
  const auto* data = As<std::shared_ptr<IteratorData>>();
  return data == nullptr ? nullptr : data->get();
}
const DictData* Value::dict() const {
  const auto* data = As<std::shared_ptr<const DictData>>();
  return data == nullptr ? nullptr : data->get();
}
NamespaceData* Value::name_space() const {
  const auto* data = As<std::shared_ptr<NamespaceData>>();
  return data == nullptr ? nullptr : data->get();
}
const LoopData* Value::loop() const {
  const auto* data = As<std::shared_ptr<const LoopData>>();
  return data == nullptr ? nullptr : data->get();
}
const MethodData* Value::method() const {
  const auto* data = As<std::shared_ptr<const MethodData>>();
  return data == nullptr ? nullptr : data->get();
}

bool Value::is_callable() const {
  return method() != nullptr || As<Function>() != nullptr ||
         As<MacroRef>() != nullptr;
}

bool Value::is_number() const {
  return As<bool>() != nullptr || As<int64_t>() != nullptr ||
         As<double>() != nullptr;
}

double Value::number() const {
  int64_t integer = 0;
  if (ToInteger(&integer)) return static_cast<double>(integer);
  return *As<double>();
}

bool Value::ToInteger(int64_t* integer) const {
  if (const bool* value = As<bool>()) {
    *integer = *value ? 1 : 0;
    return true;
  }
  if (const int64_t* value = As<int64_t>()) {
    *integer = *value;
    return true;
  }
  return false;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0.0;
  if (text() != nullptr) return !text()->empty();
  if (list() != nullptr) return !list()->items.empty();
  if (dict() != nullptr) return !dict()->entries.empty();
  return true;
}

int Value::depth() const {
  if (list() != nullptr) return list()->depth;
  if (dict() != nullptr) return dict()->depth;
  if (iterator() != nullptr) return iterator()->depth;
  return 0;
}

namespace {

std::string_view TypeName(ListKind kind) {
  switch (kind) {
    case ListKind::kTuple:
    case ListKind::kGroup:
      return "tuple";
    case ListKind::kRange:
      return "range";
    case ListKind::kDictKeys:
      return "dict_keys";
    case ListKind::kDictValues:
      return "dict_values";
    case ListKind::kDictItems:
      return "dict_items";
    case ListKind::kList:
      break;
  }
  return "list";
}

}  // namespace

std::string_view Value::type_name() const {
  if (is_undefined()) return "undefined value";
  if (is_none()) return "NoneType";
  if (As<bool>() != nullptr) return "bool";
  if (As<int64_t>() != nullptr) return "int";
  if (As<double>() != nullptr) return "float";
  if (is_safe()) return "Markup";
  if (text() != nullptr) return "str";
  if (list() != nullptr) return TypeName(list()->kind);
  if (iterator() != nullptr) return "generator";
  if (dict() != nullptr) return "dict";
  if (name_space() != nullptr) return "namespace";
  if (loop() != nullptr) return "loop";
  if (method() != nullptr) return "method";
  return As<MacroRef>() != nullptr ? "macro" : "function";
}

const Value* DictData::Find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.text() != nullptr && *name.text() == key) return &value;
  }
  return nullptr;
}

absl::Status RequireHashable(const Value& value) {
  if (value.dict() != nullptr ||
      (value.list() != nullptr && value.list()->is_list())) {
    return InvalidArgument("a {} cannot be a key", value.type_name());
  }
  if (value.list() == nullptr || !value.list()->is_tuple()) {
    return absl::OkStatus();
  }
  for (const Value& item : value.list()->items) {
    RETURN_IF_ERROR(RequireHashable(item));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget) {
  RETURN_IF_ERROR(budget->Work(sizeof(Value)));
  if (a.is_number() && b.is_number()) {
    int64_t x = 0;
    int64_t y = 0;
    if (a.ToInteger(&x) && b.ToInteger(&y)) return x == y;
    return a.number() == b.number();
  }
  if (a.is_undefined() && b.is_undefined()) return true;
  if (a.is_none() && b.is_none()) return true;
  if (a.text() != nullptr && b.text() != nullptr) {
    RETURN_IF_ERROR(budget->Work(a.text()->size()));
    return *a.text() == *b.text();
  }
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto& x = a.list()->items;
    const auto& y = b.list()->items;
    if (TypeName(a.list()->kind) != TypeName(b.list()->kind) ||
        x.size() != y.size()) {
      return false;
    }
    for (size_t i = 0; i < x.size(); ++i) {
      ASSIGN_OR_RETURN(const bool equal, Equal(x[i], y[i], budget));
      if (!equal) return false;
    }
    return true;
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    if (a.dict()->entries.size() != b.dict()->entries.size()) return false;
    for (const auto& [key, value] : a.dict()->entries) {
      bool found = false;
      for (const auto& [other_key, other_value] : b.dict()->entries) {
        ASSIGN_OR_RETURN(const bool same_key, Equal(key, other_key, budget));
        if (!same_key) continue;
        ASSIGN_OR_RETURN(found, Equal(value, other_value, budget));
        break;
      }
      if (!found) return false;
    }
    return true;
  }
  if (a.iterator() != nullptr) return a.iterator() == b.iterator();
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  return false;
}

absl::StatusOr<int> Compare(const Value& a, const Value& b, Budget* budget) {
  RETURN_IF_ERROR(budget->Work(sizeof(Value)));
  int64_t x = 0;
  int64_t y = 0;
  if (a.ToInteger(&x) && b.ToInteger(&y)) return x < y ? -1 : x > y;
  if (a.is_number() && b.is_number()) {
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (a.text() != nullptr && b.text() != nullptr) {
    RETURN_IF_ERROR(budget->Work(a.text()->size()));
    return a.text()->compare(*b.text());  // bytes order like characters
  }
  if (a.list() != nullptr && b.list() != nullptr &&
      a.list()->is_tuple() == b.list()->is_tuple() &&
      a.list()->is_list() == b.list()->is_list()) {
    const auto& p = a.list()->items;
    const auto& q = b.list()->items;
    for (size_t i = 0; i < p.size() && i < q.size(); ++i) {
      ASSIGN_OR_RETURN(const bool equal, Equal(p[i], q[i], budget));
      if (!equal) return Compare(p[i], q[i], budget);
    }
    return p.size() < q.size() ? -1 : p.size() > q.size();
  }
  return InvalidArgument("{} and {} have no order", a.type_name(),
                         b.type_name());
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item,
                              Budget* budget) {
  if (const std::string* text = container.text()) {
    if (item.text() == nullptr) {
      return InvalidArgument("'in <str>' needs a str on the left, not {}",
                             item.type_name());
    }
    RETURN_IF_ERROR(budget->Work(text->size()));
    return FindText(*text, *item.text(), 0) != std::string_view::npos;
  }
  if (container.dict() != nullptr) {
    RETURN_IF_ERROR(RequireHashable(item));
    for (const auto& [key, value] : container.dict()->entries) {
      ASSIGN_OR_RETURN(const bool equal, Equal(key, item, budget));
      if (equal) return true;
    }
    return false;
  }
  if (container.list() != nullptr) {
    for (const Value& member : container.list()->items) {
      ASSIGN_OR_RETURN(const bool equal, Equal(member, item, budget));
      if (equal) return true;
    }
    return false;
  }
  if (IteratorData* iterator = container.iterator()) {
    while (iterator->position < iterator->items.size()) {
      const Value& member = iterator->items[iterator->position++];
      ASSIGN_OR_RETURN(const bool equal, Equal(member, item, budget));
      if (equal) return true;
    }
    RETURN_IF_ERROR(iterator->end);
    return false;
  }
  if (container.is_undefined()) return false;
  return InvalidArgument("'in' needs a str, list or dict on the right, not {}",
                         container.type_name());
}

absl::StatusOr<std::optional<Value>> NextItem(const Value& value,
                                              Budget* budget) {
  IteratorData* iterator = value.iterator();
  if (iterator == nullptr) {
    ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, budget));
    if (items.empty()) return std::nullopt;
    return std::move(items.front());
  }
  if (iterator->position < iterator->items.size()) {
    return iterator->items[iterator->position++];
  }
  RETURN_IF_ERROR(iterator->end);
  return std::nullopt;
}

absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget* budget) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.list() != nullptr) {
    items = value.list()->items;
  } else if (IteratorData* iterator = value.iterator()) {
    items.assign(iterator->items.begin() +
                     static_cast<std::ptrdiff_t>(iterator->position),
                 iterator->items.end());
    iterator->position = iterator->items.size();
    RETURN_IF_ERROR(iterator->end);
  } else if (value.dict() != nullptr) {
    for (const auto& [key, entry] : value.dict()->entries) items.push_back(key);
  } else if (const std::string* text = value.text()) {
    RETURN_IF_ERROR(budget->Work(text->size() * sizeof(Value)));
    size_t offset = 0;
    while (offset < text->size()) {
      const size_t begin = offset;
      DecodeUtf8(*text, &offset);
      items.emplace_back(text->substr(begin, offset - begin));
    }
  } else {
    return InvalidArgument("a value of type {} cannot be iterated over",
                           value.type_name());
  }
  RETURN_IF_ERROR(budget->Work(items.size() * sizeof(Value)));
  return items;
}

}  // namespace witan::jinja

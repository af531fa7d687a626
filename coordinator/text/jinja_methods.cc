// Attributes, items, methods and functions.

#include <algorithm>
#include <ctime>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_builtins.h"

namespace witan::jinja {

namespace {

bool IsListMethod(std::string_view name) {
  return name == "index" || name == "count" || name == "copy";
}

bool IsDictMethod(std::string_view name) {
  return name == "get" || name == "items" || name == "keys" ||
         name == "values" || name == "copy";
}

// Methods that Python has and a template must not call. They hide members of
// the same name.
bool IsForbiddenDictMethod(std::string_view name) {
  return name == "clear" || name == "fromkeys" || name == "pop" ||
         name == "popitem" || name == "setdefault" || name == "update";
}

Value Method(const Value& receiver, std::string_view name) {
  return Value(std::make_shared<const MethodData>(
      MethodData{receiver, std::string(name)}));
}

Value NoAttribute(const Value& value, std::string_view name) {
  // A long one is cut: this is made for each look-up, and mostly not read.
  name = name.substr(0, kMaxQuotedBytes);
  name = name.substr(0, ValidUtf8Prefix(name));
  return Value(Undefined{
      fmt::format("'{}' has no attribute '{}'", value.type_name(), name)});
}

Value LoopAttribute(const LoopData& loop, const Value& value,
                    std::string_view name) {
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "revindex") return Value(loop.length - loop.index0);
  if (name == "revindex0") return Value(loop.length - loop.index0 - 1);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 == loop.length);
  if (name == "length") return Value(loop.length);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") return loop.previous;
  if (name == "nextitem") return loop.next;
  if (name == "cycle" || name == "changed") return Method(value, name);
  return NoAttribute(value, name);
}

absl::StatusOr<Value> CallDictMethod(const Value& receiver,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context) {
  const DictData& dict = *receiver.dict();
  if (name == "get") {
    ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 2, name));
    if (!bound[0].has_value()) return InvalidArgument("get needs a key");
    RETURN_IF_ERROR(RequireHashable(*bound[0]));
    for (const auto& [key, value] : dict.entries) {
      ASSIGN_OR_RETURN(const bool equal,
                       Equal(key, *bound[0], &context->budget));
      if (equal) return value;
    }
    return bound[1].value_or(Value());
  }
  RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
  if (name == "copy") return receiver;
  RETURN_IF_ERROR(context->budget.Work(dict.entries.size() * sizeof(Value)));
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") {
      items.push_back(key);
    } else if (name == "values") {
      items.push_back(value);
    } else {
      ASSIGN_OR_RETURN(Value pair, Value::List({key, value}, ListKind::kTuple));
      items.push_back(std::move(pair));
    }
  }
  return Value::List(std::move(items), name == "keys" ? ListKind::kDictKeys
                                       : name == "values"
                                           ? ListKind::kDictValues
                                           : ListKind::kDictItems);
}

absl::StatusOr<Value> CallListMethod(const Value& receiver,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context) {
  const std::vector<Value>& items = receiver.list()->items;
  if (name == "copy") {
    RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
    return receiver;
  }
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 1, name));
  if (!bound[0].has_value()) return InvalidArgument("{} needs a value", name);
  int64_t count = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal,
                     Equal(items[i], *bound[0], &context->budget));
    if (equal && name == "index") return Value(static_cast<int64_t>(i));
    count += equal ? 1 : 0;
  }
  if (name == "count") return Value(count);
  return InvalidArgument("index of a value that is not in the list");
}

absl::StatusOr<Value> CallLoopMethod(const LoopData& loop,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context) {
  if (!arguments.named.empty()) {
    return InvalidArgument("loop.{} takes no arguments with names", name);
  }
  const std::vector<Value>& values = arguments.positional;
  if (name == "cycle") {
    if (values.empty()) return InvalidArgument("loop.cycle needs values");
    return values[static_cast<size_t>(loop.index0) % values.size()];
  }
  for (const Value& value : values) RETURN_IF_ERROR(RequireStorable(value));
  bool changed = loop.last_changed->size() != values.size() ||
                 (values.empty() && loop.index0 == 0);
  for (size_t i = 0; i < values.size() && !changed; ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equal((*loop.last_changed)[i], values[i],
                                             &context->budget));
    changed = !equal;
  }
  *loop.last_changed = values;
  return Value(changed);
}

absl::StatusOr<Value> MakeRange(const CallArguments& arguments,
                                CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 3, "range"));
  int64_t bounds[3] = {0, 0, 1};
  for (int i = 0; i < 3; ++i) {
    if (bound[i].has_value() && !bound[i]->ToInteger(&bounds[i])) {
      return InvalidArgument("range needs integers, not {}",
                             bound[i]->type_name());
    }
  }
  if (!bound[0].has_value()) return InvalidArgument("range needs an end");
  if (!bound[1].has_value()) {
    bounds[1] = bounds[0];
    bounds[0] = 0;
  }
  const auto [start, stop, step] = bounds;
  if (step == 0) return InvalidArgument("range with a step of 0");
  // Counted without overflow: the distance of two int64_t fits uint64_t.
  const bool is_empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t distance =
      step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
               : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step)
                                   : uint64_t{0} - static_cast<uint64_t>(step);
  const uint64_t num_items = is_empty ? 0 : (distance - 1) / stride + 1;
  if (num_items > static_cast<uint64_t>(kMaxTemplateRange)) {
    return InvalidArgument("range of more than {} items", kMaxTemplateRange);
  }
  RETURN_IF_ERROR(context->budget.Work(num_items * sizeof(Value)));
  return Value::Range(start, stop, step);
}

absl::StatusOr<Value> FormatNow(const CallArguments& arguments,
                                CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"format"}, "strftime_now"));
  const std::string* format = bound[0].has_value() ? bound[0]->text() : nullptr;
  if (format == nullptr) return InvalidArgument("strftime_now needs a str");
  RETURN_IF_ERROR(context->budget.Work(format->size()));
  const std::time_t now = static_cast<std::time_t>(context->now_unix_seconds);
  std::tm utc = {};
  if (gmtime_r(&now, &utc) == nullptr) {
    return InvalidArgument("the time {} has no date", now);
  }
  char buffer[1024];
  // The blank tells an empty result from one that is too long.
  const size_t size =
      std::strftime(buffer, sizeof(buffer), (" " + *format).c_str(), &utc);
  if (size == 0) return InvalidArgument("strftime_now: the format is too long");
  return Value(std::string(buffer + 1, size - 1));
}

// dict(a=1) and namespace(a=1), the latter also namespace(a_dict).
absl::StatusOr<std::vector<std::pair<Value, Value>>> NamedValues(
    const CallArguments& arguments, std::string_view callee, Budget* budget) {
  std::vector<std::pair<Value, Value>> entries;
  if (arguments.positional.size() > 1) {
    return InvalidArgument("{} takes at most one dict", callee);
  }
  if (!arguments.positional.empty()) {
    const Value& given = arguments.positional[0];
    if (const DictData* dict = given.dict()) {
      RETURN_IF_ERROR(budget->Work(dict->entries.size() * sizeof(Value)));
      entries = dict->entries;
    } else {
      ASSIGN_OR_RETURN(const auto pairs, Iterate(given, budget));
      for (const Value& pair : pairs) {
        ASSIGN_OR_RETURN(auto members, Iterate(pair, budget));
        if (members.size() != 2) {
          return InvalidArgument("{} needs a dict, or pairs", callee);
        }
        RETURN_IF_ERROR(PutEntry(std::move(members[0]), std::move(members[1]),
                                 budget, &entries));
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    RETURN_IF_ERROR(PutEntry(Value(name), value, budget, &entries));
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::vector<std::optional<Value>>> BindArguments(
    const CallArguments& arguments,
    std::initializer_list<std::string_view> parameters,
    std::string_view callee) {
  std::vector<std::optional<Value>> bound(parameters.size());
  if (arguments.positional.size() > bound.size()) {
    return InvalidArgument("{} takes at most {} arguments, got {}", callee,
                           bound.size(), arguments.positional.size());
  }
  std::copy(arguments.positional.begin(), arguments.positional.end(),
            bound.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    if (found == parameters.end()) {
      return InvalidArgument("{} has no argument '{}'", callee, name);
    }
    std::optional<Value>& slot = bound[found - parameters.begin()];
    if (slot.has_value()) {
      return InvalidArgument("{} got argument '{}' twice", callee, name);
    }
    slot = value;
  }
  return bound;
}

absl::StatusOr<std::vector<std::optional<Value>>> BindPositional(
    const CallArguments& arguments, size_t max_arguments,
    std::string_view callee) {
  if (!arguments.named.empty()) {
    return InvalidArgument("{} takes no arguments with names, got '{}'", callee,
                           arguments.named.front().first);
  }
  if (arguments.positional.size() > max_arguments) {
    return InvalidArgument("{} takes at most {} arguments, got {}", callee,
                           max_arguments, arguments.positional.size());
  }
  std::vector<std::optional<Value>> bound(arguments.positional.begin(),
                                          arguments.positional.end());
  bound.resize(max_arguments);
  return bound;
}

absl::Status PutEntry(Value key, Value value, Budget* budget,
                      std::vector<std::pair<Value, Value>>* entries) {
  RETURN_IF_ERROR(RequireHashable(key));
  RETURN_IF_ERROR(RequireDefined(key));
  RETURN_IF_ERROR(RequireStorable(key));
  for (auto& [known, old_value] : *entries) {
    ASSIGN_OR_RETURN(const bool equal, Equal(known, key, budget));
    if (!equal) continue;
    old_value = std::move(value);
    return absl::OkStatus();
  }
  entries->emplace_back(std::move(key), std::move(value));
  return absl::OkStatus();
}

absl::Status RequireDefined(const Value& value) {
  const Undefined* undefined = value.As<Undefined>();
  if (undefined == nullptr) return absl::OkStatus();
  return InvalidArgument("{}", undefined->what);
}

absl::Status RequireStorable(const Value& value) {
  return Value::List({value}).status();
}

absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name,
                                   Budget* budget) {
  RETURN_IF_ERROR(RequireDefined(value));
  if (const DictData* dict = value.dict()) {
    RETURN_IF_ERROR(budget->Work(dict->entries.size()));
    if (IsDictMethod(name)) return Method(value, name);
    if (IsForbiddenDictMethod(name)) return NoAttribute(value, name);
    if (const Value* member = dict->Find(name)) return *member;
  }
  if (value.text() != nullptr && IsTextMethod(name)) return Method(value, name);
  if (const ListData* list = value.list()) {
    const bool has_methods = list->is_list() ? true : list->is_tuple();
    if (list->kind == ListKind::kGroup && name == "grouper") {
      return list->items[0];
    }
    if (list->kind == ListKind::kGroup && name == "list") {
      return list->items[1];
    }
    if (has_methods && IsListMethod(name) &&
        (list->is_list() || name != "copy")) {
      return Method(value, name);
    }
  }
  if (const NamespaceData* data = value.name_space()) {
    const auto found = data->attributes.find(name);
    if (found != data->attributes.end()) return found->second;
  }
  if (value.loop() != nullptr) {
    return LoopAttribute(*value.loop(), value, name);
  }
  return NoAttribute(value, name);
}

absl::StatusOr<Value> GetItem(const Value& value, const Value& key,
                              Budget* budget) {
  RETURN_IF_ERROR(RequireDefined(value));
  if (const DictData* dict = value.dict()) {
    for (const auto& [name, member] : dict->entries) {
      ASSIGN_OR_RETURN(const bool equal, Equal(name, key, budget));
      if (equal) return member;
    }
  }
  if (key.iterator() != nullptr || key.list() != nullptr ||
      key.dict() != nullptr) {
    return Value(Undefined{fmt::format("'{}' has no item of type {}",
                                       value.type_name(), key.type_name())});
  }
  int64_t index = 0;
  if (key.ToInteger(&index) &&
      (value.sequence() != nullptr || value.text() != nullptr)) {
    std::vector<Value> characters;
    if (value.text() != nullptr) {
      ASSIGN_OR_RETURN(characters, Iterate(value, budget));
    }
    const std::vector<Value>& items =
        value.list() != nullptr ? value.list()->items : characters;
    const int64_t size = static_cast<int64_t>(items.size());
    const int64_t offset = index < 0 ? index + size : index;
    if (offset >= 0 && offset < size) return items[offset];
    return Value(Undefined{
        fmt::format("'{}' has no item {}", value.type_name(), index)});
  }
  if (key.text() != nullptr) return GetAttribute(value, *key.text(), budget);
  ASSIGN_OR_RETURN(const std::string shown, ToText(key, budget));
  return Value(
      Undefined{fmt::format("'{}' has no item {}", value.type_name(), shown)});
}

absl::StatusOr<Value> CallMethod(const MethodData& method,
                                 const CallArguments& arguments,
                                 CallContext* context) {
  const Value& receiver = method.receiver;
  if (receiver.is_safe()) {
    return InvalidArgument("methods of a text that is safe are not supported");
  }
  if (receiver.text() != nullptr) {
    return CallTextMethod(*receiver.text(), method.name, arguments, context);
  }
  if (receiver.dict() != nullptr) {
    return CallDictMethod(receiver, method.name, arguments, context);
  }
  if (receiver.list() != nullptr) {
    return CallListMethod(receiver, method.name, arguments, context);
  }
  return CallLoopMethod(*receiver.loop(), method.name, arguments, context);
}

absl::StatusOr<Value> CallFunction(Function function,
                                   const CallArguments& arguments,
                                   CallContext* context) {
  switch (function) {
    case Function::kRange:
      return MakeRange(arguments, context);
    case Function::kStrftimeNow:
      return FormatNow(arguments, context);
    case Function::kDict: {
      ASSIGN_OR_RETURN(auto entries,
                       NamedValues(arguments, "dict", &context->budget));
      return Value::Dict(std::move(entries));
    }
    case Function::kNamespace: {
      ASSIGN_OR_RETURN(const auto entries,
                       NamedValues(arguments, "namespace", &context->budget));
      auto data = std::make_shared<NamespaceData>();
      for (const auto& [name, value] : entries) {
        RETURN_IF_ERROR(RequireStorable(value));
        if (name.text() == nullptr) {
          return InvalidArgument("names of a namespace must be of type str");
        }
        if (name.text()->starts_with('_')) {
          return InvalidArgument(
              "'{}' begins with _, which no namespace stores", *name.text());
        }
        data->attributes[*name.text()] = value;
      }
      return Value(std::move(data));
    }
    case Function::kRaiseException:
      break;
  }
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"message"}, "raise_exception"));
  std::string message = "raise_exception was called";
  if (bound[0].has_value()) {
    ASSIGN_OR_RETURN(message, ToText(*bound[0], &context->budget));
  }
  context->refused = true;
  return InvalidArgument("{}", message);
}

}  // namespace witan::jinja

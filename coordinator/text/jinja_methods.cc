// Attributes, items, methods and functions.

#include <algorithm>
#include <ctime>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

bool IsTextMethod(std::string_view name) {
  static const std::set<std::string_view> kMethods = {
      "capitalize", "count",  "endswith",     "find",         "join",
      "lower",      "lstrip", "removeprefix", "removesuffix", "replace",
      "rsplit",     "rstrip", "split",        "startswith",   "strip",
      "title",      "upper"};
  return kMethods.contains(name);
}

bool IsDictMethod(std::string_view name) {
  return name == "get" || name == "items" || name == "keys" || name == "values";
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
  // Depth counts recursive loops only, which there are none of.
  if (name == "depth") return Value(int64_t{1});
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") return loop.previous;
  if (name == "nextitem") return loop.next;
  if (name == "cycle") return Method(value, name);
  return NoAttribute(value, name);
}

absl::StatusOr<Value> TextList(absl::StatusOr<std::vector<std::string>> parts) {
  RETURN_IF_ERROR(parts.status());
  std::vector<Value> items;
  items.reserve(parts->size());
  for (std::string& part : *parts) items.emplace_back(std::move(part));
  return Value::List(std::move(items), /*is_tuple=*/false);
}

// The text argument `value`, or an error; absent and None give nullptr.
absl::StatusOr<const std::string*> TextOrNull(const std::optional<Value>& value,
                                              std::string_view callee) {
  if (!value.has_value() || value->is_none()) return nullptr;
  if (value->text() != nullptr) return value->text();
  return InvalidArgument("{} needs a str, not {}", callee, value->type_name());
}

absl::StatusOr<const std::string*> RequireText(
    const std::optional<Value>& value, std::string_view callee) {
  ASSIGN_OR_RETURN(const std::string* text, TextOrNull(value, callee));
  if (text == nullptr) return InvalidArgument("{} needs a str", callee);
  return text;
}

absl::StatusOr<int64_t> LimitOr(const std::optional<Value>& value,
                                std::string_view callee) {
  if (!value.has_value()) return -1;
  int64_t limit = 0;
  if (!value->ToInteger(&limit)) {
    return InvalidArgument("{} needs an integer as its limit, not {}", callee,
                           value->type_name());
  }
  return std::max<int64_t>(limit, -1);
}

absl::StatusOr<Value> StripMethod(const std::string& text,
                                  std::string_view name,
                                  const CallArguments& arguments,
                                  CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, {"chars"}, name));
  ASSIGN_OR_RETURN(const std::string* removed, TextOrNull(bound[0], name));
  if (removed != nullptr && removed->empty()) return Value(text);
  const Side side = name == "strip"    ? Side::kBoth
                    : name == "lstrip" ? Side::kLeft
                                       : Side::kRight;
  RETURN_IF_ERROR(context->budget.Work(
      text.size() * (removed == nullptr ? 1 : removed->size())));
  return Value(
      std::string(Strip(text, removed == nullptr ? "" : *removed, side)));
}

absl::StatusOr<Value> SplitMethod(const std::string& text,
                                  std::string_view name,
                                  const CallArguments& arguments,
                                  CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"sep", "maxsplit"}, name));
  ASSIGN_OR_RETURN(const std::string* separator, TextOrNull(bound[0], name));
  ASSIGN_OR_RETURN(const int64_t limit, LimitOr(bound[1], name));
  if (separator == nullptr) {
    if (name == "rsplit" && limit >= 0) {
      return InvalidArgument("rsplit with a limit needs a separator");
    }
    return TextList(SplitWords(text, limit, &context->budget));
  }
  if (separator->empty()) return InvalidArgument("empty separator");
  const auto split = name == "split" ? SplitText : SplitTextFromRight;
  return TextList(split(text, *separator, limit, &context->budget));
}

absl::StatusOr<Value> AffixMethod(const std::string& text,
                                  std::string_view name,
                                  const CallArguments& arguments,
                                  CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, {"affix"}, name));
  std::vector<Value> affixes;
  if (bound[0].has_value() && bound[0]->list() != nullptr &&
      bound[0]->list()->is_tuple) {
    ASSIGN_OR_RETURN(affixes, Iterate(*bound[0], &context->budget));
  } else if (bound[0].has_value()) {
    affixes.push_back(*bound[0]);
  }
  if (affixes.empty() && !bound[0].has_value()) {
    return InvalidArgument("{} needs a str", name);
  }
  for (const Value& affix : affixes) {
    ASSIGN_OR_RETURN(const std::string* wanted, RequireText(affix, name));
    RETURN_IF_ERROR(context->budget.Work(sizeof(Value) + wanted->size()));
    if (name == "startswith" ? text.starts_with(*wanted)
                             : text.ends_with(*wanted)) {
      return Value(true);
    }
  }
  return Value(false);
}

absl::StatusOr<Value> ReplaceMethod(const std::string& text,
                                    const CallArguments& arguments,
                                    CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"old", "new", "count"}, "replace"));
  ASSIGN_OR_RETURN(const std::string* old, RequireText(bound[0], "replace"));
  ASSIGN_OR_RETURN(const std::string* fresh, RequireText(bound[1], "replace"));
  ASSIGN_OR_RETURN(const int64_t limit, LimitOr(bound[2], "replace"));
  // No result is longer than if every byte began an occurrence.
  const size_t max_found = text.size() / std::max<size_t>(old->size(), 1) + 1;
  if (fresh->size() > kMaxTemplateOutputBytes) {
    return ResourceExhausted("the replacement has more than {} bytes",
                             kMaxTemplateOutputBytes);
  }
  RETURN_IF_ERROR(context->budget.Work(text.size()));
  size_t num_found = max_found;
  if (!old->empty()) {
    num_found = static_cast<size_t>(CountText(text, *old));
  }
  if (limit >= 0) num_found = std::min(num_found, static_cast<size_t>(limit));
  RETURN_IF_ERROR(context->budget.Work(num_found * fresh->size()));
  return Value(ReplaceText(text, *old, *fresh, limit));
}

absl::StatusOr<Value> SearchMethod(const std::string& text,
                                   std::string_view name,
                                   const CallArguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, {"sub"}, name));
  ASSIGN_OR_RETURN(const std::string* wanted, RequireText(bound[0], name));
  if (name == "find") {
    const size_t offset = FindText(text, *wanted, 0);
    if (offset == std::string::npos) return Value(int64_t{-1});
    return Value(static_cast<int64_t>(
        CountUtf8(std::string_view(text).substr(0, offset))));
  }
  if (name == "count") {
    if (wanted->empty()) {
      return Value(static_cast<int64_t>(CountUtf8(text)) + 1);
    }
    return Value(CountText(text, *wanted));
  }
  if (name == "removeprefix" && text.starts_with(*wanted)) {
    return Value(text.substr(wanted->size()));
  }
  if (name == "removesuffix" && text.ends_with(*wanted)) {
    return Value(text.substr(0, text.size() - wanted->size()));
  }
  return Value(text);
}

absl::StatusOr<Value> CallTextMethod(const std::string& text,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context) {
  RETURN_IF_ERROR(context->budget.Work(text.size()));
  if (name.ends_with("strip")) {
    return StripMethod(text, name, arguments, context);
  }
  if (name.ends_with("split")) {
    return SplitMethod(text, name, arguments, context);
  }
  if (name.ends_with("with"))
    return AffixMethod(text, name, arguments, context);
  if (name == "replace") return ReplaceMethod(text, arguments, context);
  if (name == "join") {
    ASSIGN_OR_RETURN(const auto bound,
                     BindArguments(arguments, {"iterable"}, name));
    if (!bound[0].has_value()) return InvalidArgument("join needs a list");
    ASSIGN_OR_RETURN(const auto items, Iterate(*bound[0], &context->budget));
    for (const Value& item : items) {
      if (item.text() == nullptr) {
        return InvalidArgument("join needs items of type str, not {}",
                               item.type_name());
      }
    }
    return ApplyFilter("join", *bound[0], {{Value(text)}, {}}, context);
  }
  if (name == "find" || name == "count" || name.starts_with("remove")) {
    return SearchMethod(text, name, arguments);
  }
  RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
  if (name == "upper") return Value(ToUpper(text));
  if (name == "lower") return Value(ToLower(text));
  if (name == "title") return Value(ToTitle(text));
  return Value(Capitalize(text));
}

absl::StatusOr<Value> CallDictMethod(const Value& receiver,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context) {
  const DictData& dict = *receiver.dict();
  if (name == "get") {
    ASSIGN_OR_RETURN(const auto bound,
                     BindArguments(arguments, {"key", "default"}, name));
    if (!bound[0].has_value()) return InvalidArgument("get needs a key");
    for (const auto& [key, value] : dict.entries) {
      ASSIGN_OR_RETURN(const bool equal,
                       Equal(key, *bound[0], &context->budget));
      if (equal) return value;
    }
    return bound[1].value_or(Value());
  }
  RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
  RETURN_IF_ERROR(context->budget.Work(dict.entries.size() * sizeof(Value)));
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") {
      items.push_back(key);
    } else if (name == "values") {
      items.push_back(value);
    } else {
      ASSIGN_OR_RETURN(Value pair,
                       Value::List({key, value}, /*is_tuple=*/true));
      items.push_back(std::move(pair));
    }
  }
  return Value::List(std::move(items), /*is_tuple=*/false);
}

absl::StatusOr<Value> MakeRange(const CallArguments& arguments,
                                CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"start", "stop", "step"}, "range"));
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
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == kMaxTemplateRange) {
      return InvalidArgument("range of more than {} items", kMaxTemplateRange);
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  RETURN_IF_ERROR(context->budget.Work(items.size() * sizeof(Value)));
  return Value::List(std::move(items), /*is_tuple=*/false);
}

absl::StatusOr<Value> FormatNow(const CallArguments& arguments,
                                CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"format"}, "strftime_now"));
  ASSIGN_OR_RETURN(const std::string* format,
                   RequireText(bound[0], "strftime_now"));
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
    const DictData* dict = arguments.positional[0].dict();
    if (dict == nullptr) {
      return InvalidArgument("{} needs a dict, not {}", callee,
                             arguments.positional[0].type_name());
    }
    RETURN_IF_ERROR(budget->Work(dict->entries.size() * sizeof(Value)));
    entries = dict->entries;
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

absl::Status PutEntry(Value key, Value value, Budget* budget,
                      std::vector<std::pair<Value, Value>>* entries) {
  if (key.list() != nullptr && !key.list()->is_tuple) {
    return InvalidArgument("a list cannot be a key");
  }
  if (key.dict() != nullptr) return InvalidArgument("a dict cannot be a key");
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
  return Value::List({value}, /*is_tuple=*/false).status();
}

absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name,
                                   Budget* budget) {
  RETURN_IF_ERROR(RequireDefined(value));
  if (const DictData* dict = value.dict()) {
    RETURN_IF_ERROR(budget->Work(dict->entries.size()));
    if (IsDictMethod(name)) return Method(value, name);
    if (const Value* member = dict->Find(name)) return *member;
  }
  if (value.text() != nullptr && IsTextMethod(name)) return Method(value, name);
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
  int64_t index = 0;
  if (key.ToInteger(&index) &&
      (value.list() != nullptr || value.text() != nullptr)) {
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
  if (receiver.text() != nullptr) {
    return CallTextMethod(*receiver.text(), method.name, arguments, context);
  }
  if (receiver.dict() != nullptr) {
    return CallDictMethod(receiver, method.name, arguments, context);
  }
  // loop.cycle
  if (arguments.positional.empty()) {
    return InvalidArgument("loop.cycle needs values");
  }
  return arguments.positional[static_cast<size_t>(receiver.loop()->index0) %
                              arguments.positional.size()];
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

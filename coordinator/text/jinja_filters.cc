// Filters and tests.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

using FilterFunction = absl::StatusOr<Value> (*)(const Value& input,
                                                 const CallArguments& arguments,
                                                 CallContext* context);

absl::StatusOr<Value> MakeList(std::vector<Value> items, CallContext* context) {
  RETURN_IF_ERROR(context->budget.Work(items.size() * sizeof(Value)));
  return Value::List(std::move(items), /*is_tuple=*/false);
}

absl::StatusOr<int64_t> IntegerOr(const std::optional<Value>& value,
                                  int64_t absent, std::string_view what) {
  if (!value.has_value() || value->is_none()) return absent;
  int64_t integer = 0;
  if (!value->ToInteger(&integer)) {
    return InvalidArgument("{} must be an integer, not {}", what,
                           value->type_name());
  }
  return integer;
}

// --- Text --------------------------------------------------------------------

// A filter of text alone, with the text of other values.
template <std::string (*function)(std::string_view)>
absl::StatusOr<Value> TextFilter(const Value& input,
                                 const CallArguments& arguments,
                                 CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "this filter").status());
  ASSIGN_OR_RETURN(const std::string text, ToText(input, &context->budget));
  return Value(function(text));
}

std::string Identity(std::string_view text) { return std::string(text); }

absl::StatusOr<Value> Trim(const Value& input, const CallArguments& arguments,
                           CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"chars"}, "trim"));
  ASSIGN_OR_RETURN(const std::string text, ToText(input, &context->budget));
  std::string removed;
  if (bound[0].has_value() && !bound[0]->is_none()) {
    ASSIGN_OR_RETURN(removed, ToText(*bound[0], &context->budget));
    if (removed.empty()) return Value(text);
  }
  RETURN_IF_ERROR(context->budget.Work(text.size() * (removed.size() + 1)));
  return Value(std::string(Strip(text, removed, Side::kBoth)));
}

absl::StatusOr<Value> Replace(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"old", "new", "count"}, "replace"));
  if (!bound[0].has_value() || !bound[1].has_value()) {
    return InvalidArgument("replace needs an old and a new text");
  }
  CallArguments forwarded;
  ASSIGN_OR_RETURN(std::string text, ToText(input, &context->budget));
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(std::string argument, ToText(*bound[i], &context->budget));
    forwarded.positional.emplace_back(std::move(argument));
  }
  if (bound[2].has_value() && !bound[2]->is_none()) {
    forwarded.positional.push_back(*bound[2]);
  }
  return CallMethod({Value(std::move(text)), "replace"}, forwarded, context);
}

absl::StatusOr<Value> Indent(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"width", "first", "blank"}, "indent"));
  ASSIGN_OR_RETURN(const std::string text, ToText(input, &context->budget));
  std::string indent(4, ' ');
  if (bound[0].has_value() && bound[0]->text() != nullptr) {
    indent = *bound[0]->text();
  } else {
    ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[0], 4, "width"));
    indent.assign(
        static_cast<size_t>(std::clamp<int64_t>(width, 0, kMaxTemplateIndent)),
        ' ');
  }
  const bool first = bound[1].has_value() && bound[1]->truth();
  const bool blank = bound[2].has_value() && bound[2]->truth();
  std::string result;
  bool is_first_line = true;
  ASSIGN_OR_RETURN(const auto lines,
                   SplitText(text, "\n", -1, &context->budget));
  for (const std::string& line : lines) {
    RETURN_IF_ERROR(context->budget.Work(indent.size() + line.size()));
    if (!is_first_line) result += '\n';
    const bool wanted = is_first_line ? first : blank || !line.empty();
    if (wanted) result += indent;
    result += line;
    is_first_line = false;
  }
  return Value(std::move(result));
}

absl::StatusOr<Value> Join(const Value& input, const CallArguments& arguments,
                           CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"d", "attribute"}, "join"));
  ASSIGN_OR_RETURN(const std::vector<Value> items,
                   Iterate(input, &context->budget));
  std::string separator;
  if (bound[0].has_value()) {
    ASSIGN_OR_RETURN(separator, ToText(*bound[0], &context->budget));
  }
  std::string result;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (bound[1].has_value() && !bound[1]->is_none()) {
      ASSIGN_OR_RETURN(item, GetItem(item, *bound[1], &context->budget));
    }
    ASSIGN_OR_RETURN(const std::string text, ToText(item, &context->budget));
    RETURN_IF_ERROR(context->budget.Work(separator.size()));
    if (i > 0) result += separator;
    result += text;
  }
  return Value(std::move(result));
}

absl::StatusOr<Value> Tojson(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments,
                                                   {"ensure_ascii", "indent",
                                                    "separators", "sort_keys"},
                                                   "tojson"));
  JsonStyle style;
  style.ensure_ascii = bound[0].has_value() && bound[0]->truth();
  ASSIGN_OR_RETURN(style.indent, IntegerOr(bound[1], -1, "indent"));
  if (style.indent > kMaxTemplateIndent) {
    return InvalidArgument("indent {} exceeds the limit of {}", style.indent,
                           kMaxTemplateIndent);
  }
  if (style.indent >= 0) style.item_separator = ",";
  if (bound[2].has_value() && !bound[2]->is_none()) {
    const ListData* separators = bound[2]->list();
    if (separators == nullptr || separators->items.size() != 2 ||
        separators->items[0].text() == nullptr ||
        separators->items[1].text() == nullptr) {
      return InvalidArgument("separators must be two texts");
    }
    style.item_separator = *separators->items[0].text();
    style.key_separator = *separators->items[1].text();
  }
  style.sort_keys = bound[3].has_value() && bound[3]->truth();
  ASSIGN_OR_RETURN(std::string json, ToJson(input, style, &context->budget));
  return Value(std::move(json));
}

// --- Numbers -----------------------------------------------------------------

// The number that `text` spells, as Python's float() reads it.
std::optional<double> ParseNumber(std::string_view text) {
  text = Strip(text, "", Side::kBoth);
  if (text.starts_with('+')) text.remove_prefix(1);
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

absl::StatusOr<Value> ToInt(const Value& input, const CallArguments& arguments,
                            CallContext*) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"default"}, "int"));
  int64_t integer = 0;
  if (input.ToInteger(&integer)) return Value(integer);
  std::optional<double> number;
  if (input.is_number()) {
    number = input.number();
  } else if (const std::string* text = input.text()) {
    std::string_view digits = Strip(*text, "", Side::kBoth);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), integer);
    if (error == std::errc() && end == digits.data() + digits.size()) {
      return Value(integer);
    }
    number = ParseNumber(*text);
  }
  // 2^63, the first number that does not fit.
  if (number.has_value() && std::abs(*number) < 9223372036854775808.0) {
    return Value(static_cast<int64_t>(*number));
  }
  return bound[0].value_or(Value(int64_t{0}));
}

absl::StatusOr<Value> ToFloat(const Value& input,
                              const CallArguments& arguments, CallContext*) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"default"}, "float"));
  if (input.is_number()) return Value(input.number());
  if (const std::string* text = input.text()) {
    if (const auto number = ParseNumber(*text)) return Value(*number);
  }
  return bound[0].value_or(Value(0.0));
}

// --- Sequences ---------------------------------------------------------------

absl::StatusOr<Value> Default(const Value& input,
                              const CallArguments& arguments, CallContext*) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"default_value", "boolean"}, "default"));
  const bool also_false = bound[1].has_value() && bound[1]->truth();
  const bool replaced = input.is_undefined() || (also_false && !input.truth());
  return replaced ? bound[0].value_or(Value(std::string())) : input;
}

absl::StatusOr<Value> Length(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "length").status());
  if (const std::string* text = input.text()) {
    RETURN_IF_ERROR(context->budget.Work(text->size()));
    return Value(static_cast<int64_t>(CountUtf8(*text)));
  }
  if (input.list() != nullptr) {
    return Value(static_cast<int64_t>(input.list()->items.size()));
  }
  if (input.dict() != nullptr) {
    return Value(static_cast<int64_t>(input.dict()->entries.size()));
  }
  if (input.is_undefined()) return Value(int64_t{0});
  return InvalidArgument("a value of type {} has no length", input.type_name());
}

absl::StatusOr<Value> First(const Value& input, const CallArguments& arguments,
                            CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "first").status());
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  if (items.empty()) return Value(Undefined{"there is no first item"});
  return items.front();
}

absl::StatusOr<Value> Last(const Value& input, const CallArguments& arguments,
                           CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "last").status());
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  if (items.empty()) return Value(Undefined{"there is no last item"});
  return items.back();
}

absl::StatusOr<Value> ToList(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "list").status());
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  return MakeList(std::move(items), context);
}

absl::StatusOr<Value> Reverse(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "reverse").status());
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  std::reverse(items.begin(), items.end());
  if (input.text() == nullptr) return MakeList(std::move(items), context);
  std::string text;
  for (const Value& item : items) text += *item.text();
  return Value(std::move(text));
}

absl::StatusOr<Value> Items(const Value& input, const CallArguments& arguments,
                            CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "items").status());
  if (input.is_undefined()) return MakeList({}, context);
  if (input.dict() == nullptr) {
    return InvalidArgument("items needs a dict, not {}", input.type_name());
  }
  return CallMethod({input, "items"}, {}, context);
}

// The value at a path such as "function.name"; digits are list indices.
absl::StatusOr<Value> GetPath(const Value& value, const Value& path,
                              CallContext* context) {
  if (path.text() == nullptr) return GetItem(value, path, &context->budget);
  Value result = value;
  RETURN_IF_ERROR(context->budget.Work(path.text()->size()));
  ASSIGN_OR_RETURN(const auto parts,
                   SplitText(*path.text(), ".", -1, &context->budget));
  for (const std::string& part : parts) {
    int64_t index = 0;
    const auto [end, error] =
        std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index =
        error == std::errc() && end == part.data() + part.size();
    ASSIGN_OR_RETURN(result,
                     GetItem(result, is_index ? Value(index) : Value(part),
                             &context->budget));
  }
  return result;
}

absl::StatusOr<Value> Map(const Value& input, const CallArguments& arguments,
                          CallContext* context) {
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  if (arguments.positional.empty()) {
    ASSIGN_OR_RETURN(const auto bound,
                     BindArguments(arguments, {"attribute", "default"}, "map"));
    if (!bound[0].has_value()) {
      return InvalidArgument("map needs the name of a filter or an attribute");
    }
    for (Value& item : items) {
      ASSIGN_OR_RETURN(item, GetPath(item, *bound[0], context));
      if (item.is_undefined() && bound[1].has_value()) item = *bound[1];
    }
    return MakeList(std::move(items), context);
  }
  const std::string* name = arguments.positional[0].text();
  if (name == nullptr) return InvalidArgument("map needs the name of a filter");
  CallArguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (Value& item : items) {
    ASSIGN_OR_RETURN(item, ApplyFilter(*name, item, rest, context));
  }
  return MakeList(std::move(items), context);
}

// select, reject, selectattr and rejectattr: keeps the items for which a test
// of the item, or of one of its attributes, gives `keep`.
template <bool keep, bool by_attribute>
absl::StatusOr<Value> Select(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  CallArguments rest = arguments;
  const auto take_first = [&rest] {
    Value first = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  Value attribute;
  if (by_attribute) {
    if (rest.positional.empty()) {
      return InvalidArgument("selectattr and rejectattr need an attribute");
    }
    attribute = take_first();
  }
  std::string test;
  if (!rest.positional.empty()) {
    const Value name = take_first();
    if (name.text() == nullptr) {
      return InvalidArgument("the name of a test must be a str");
    }
    test = *name.text();
  }
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  std::vector<Value> kept;
  for (const Value& item : items) {
    RETURN_IF_ERROR(context->budget.Step());
    Value judged = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(judged, GetPath(item, attribute, context));
    }
    bool holds = judged.truth();
    if (!test.empty()) {
      ASSIGN_OR_RETURN(holds, ApplyTest(test, judged, rest, context));
    }
    if (holds == keep) kept.push_back(item);
  }
  return MakeList(std::move(kept), context);
}

const std::map<std::string_view, FilterFunction>& Filters() {
  static const std::map<std::string_view, FilterFunction> kFilters = {
      {"capitalize", TextFilter<Capitalize>},
      {"count", Length},
      {"d", Default},
      {"default", Default},
      {"first", First},
      {"float", ToFloat},
      {"indent", Indent},
      {"int", ToInt},
      {"items", Items},
      {"join", Join},
      {"last", Last},
      {"length", Length},
      {"list", ToList},
      {"lower", TextFilter<ToLower>},
      {"map", Map},
      {"reject", Select<false, false>},
      {"rejectattr", Select<false, true>},
      {"replace", Replace},
      {"reverse", Reverse},
      {"safe", TextFilter<Identity>},
      {"select", Select<true, false>},
      {"selectattr", Select<true, true>},
      {"string", TextFilter<Identity>},
      {"title", TextFilter<ToTitleWords>},
      {"tojson", Tojson},
      {"trim", Trim},
      {"upper", TextFilter<ToUpper>},
  };
  return kFilters;
}

// --- Tests -------------------------------------------------------------------

using TestFunction = bool (*)(const Value& value);

bool IsInteger(const Value& value) { return value.As<int64_t>() != nullptr; }
bool IsSequence(const Value& value) {
  return value.text() != nullptr || value.list() != nullptr ||
         value.dict() != nullptr;
}

const std::map<std::string_view, TestFunction>& SimpleTests() {
  static const std::map<std::string_view, TestFunction> kTests = {
      {"boolean", [](const Value& v) { return v.As<bool>() != nullptr; }},
      {"callable", [](const Value& v) { return v.is_callable(); }},
      {"defined", [](const Value& v) { return !v.is_undefined(); }},
      {"false", [](const Value& v) { return v.As<bool>() && !*v.As<bool>(); }},
      {"float", [](const Value& v) { return v.As<double>() != nullptr; }},
      {"integer", IsInteger},
      {"iterable",
       [](const Value& v) { return IsSequence(v) || v.is_undefined(); }},
      {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
      {"none", [](const Value& v) { return v.is_none(); }},
      {"number", [](const Value& v) { return v.is_number(); }},
      {"sequence", IsSequence},
      {"string", [](const Value& v) { return v.text() != nullptr; }},
      {"true", [](const Value& v) { return v.As<bool>() && *v.As<bool>(); }},
      {"undefined", [](const Value& v) { return v.is_undefined(); }},
  };
  return kTests;
}

// The operator that a test of two values stands for, or "".
std::string_view OperatorOf(std::string_view test) {
  if (test == "eq" || test == "equalto" || test == "==") return "==";
  if (test == "ne" || test == "!=") return "!=";
  if (test == "lt" || test == "lessthan" || test == "<") return "<";
  if (test == "le" || test == "<=") return "<=";
  if (test == "gt" || test == "greaterthan" || test == ">") return ">";
  if (test == "ge" || test == ">=") return ">=";
  if (test == "in" || test == "sameas" || test == "divisibleby") return test;
  return "";
}

absl::StatusOr<bool> TestIntegers(std::string_view name, const Value& value,
                                  int64_t divisor) {
  int64_t dividend = 0;
  if (!value.ToInteger(&dividend)) {
    return InvalidArgument("test '{}' needs an integer, not {}", name,
                           value.type_name());
  }
  if (divisor == 0) return InvalidArgument("division by zero");
  return divisor == -1 || dividend % divisor == 0;
}

absl::StatusOr<bool> TestPair(std::string_view op, const Value& value,
                              const Value& other, Budget* budget) {
  if (op == "==") return Equal(value, other, budget);
  if (op == "in") return Contains(other, value, budget);
  if (op == "!=") {
    ASSIGN_OR_RETURN(const bool equal, Equal(value, other, budget));
    return !equal;
  }
  if (op == "sameas") {
    if (value.type_name() != other.type_name()) return false;
    return Equal(value, other, budget);
  }
  if (op == "divisibleby") {
    int64_t divisor = 0;
    if (!other.ToInteger(&divisor)) {
      return InvalidArgument("divisibleby needs an integer");
    }
    return TestIntegers(op, value, divisor);
  }
  RETURN_IF_ERROR(RequireDefined(value));
  RETURN_IF_ERROR(RequireDefined(other));
  ASSIGN_OR_RETURN(const int order, Compare(value, other, budget));
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

}  // namespace

absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input,
                                  const CallArguments& arguments,
                                  CallContext* context) {
  RETURN_IF_ERROR(context->budget.Step());
  const auto found = Filters().find(name);
  if (found == Filters().end()) {
    return InvalidArgument("there is no filter '{}'", name);
  }
  if (++context->depth > kMaxTemplateDepth) {
    return InvalidArgument("filters nested deeper than {} levels",
                           kMaxTemplateDepth);
  }
  absl::StatusOr<Value> result = found->second(input, arguments, context);
  --context->depth;
  return result;
}

absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value,
                               const CallArguments& arguments,
                               CallContext* context) {
  RETURN_IF_ERROR(context->budget.Step());
  const auto simple = SimpleTests().find(name);
  if (simple != SimpleTests().end()) {
    RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
    return simple->second(value);
  }
  if (name == "even" || name == "odd") {
    RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
    ASSIGN_OR_RETURN(const bool is_even, TestIntegers(name, value, 2));
    return is_even == (name == "even");
  }
  const std::string_view op = OperatorOf(name);
  if (op.empty()) return InvalidArgument("there is no test '{}'", name);
  ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, {"other"}, name));
  if (!bound[0].has_value()) {
    return InvalidArgument("test '{}' needs a value to compare with", name);
  }
  return TestPair(op, value, *bound[0], &context->budget);
}

}  // namespace witan::jinja

// Filters of text, numbers and single values.

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

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

absl::StatusOr<Value> Safe(const Value& input, const CallArguments& arguments,
                           CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "safe").status());
  ASSIGN_OR_RETURN(std::string text, ToText(input, &context->budget));
  return Value::Safe(std::move(text));
}

// Filters whose result is safe if their input is.
bool KeepsSafe(std::string_view filter) {
  static const std::set<std::string_view> kFilters = {
      "capitalize", "center", "indent", "lower", "string", "trim", "upper"};
  return kFilters.contains(filter);
}

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
  const std::string* text = input.text();
  if (text == nullptr) {
    return InvalidArgument("indent needs a str, not {}", input.type_name());
  }
  RETURN_IF_ERROR(context->budget.Work(text->size()));
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
  ASSIGN_OR_RETURN(auto lines, SplitLines(*text + "\n", /*keeps_ends=*/false,
                                          &context->budget));
  std::string result;
  for (size_t i = 0; i < lines.size(); ++i) {
    RETURN_IF_ERROR(context->budget.Work(indent.size() + lines[i].size()));
    if (i > 0) result += '\n';
    const bool wanted = i == 0 ? first : blank || !lines[i].empty();
    if (wanted) result += indent;
    result += lines[i];
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
      ASSIGN_OR_RETURN(item, GetPath(item, *bound[1], &context->budget));
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
  if (bound[1].has_value() && bound[1]->text() != nullptr) {
    style.indent = *bound[1]->text();
  } else if (bound[1].has_value() && !bound[1]->is_none()) {
    ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[1], 0, "indent"));
    if (width > kMaxTemplateIndent) {
      return InvalidArgument("indent {} exceeds the limit of {}", width,
                             kMaxTemplateIndent);
    }
    style.indent =
        std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  if (style.indent.has_value()) style.item_separator = ",";
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

// Without the single _ that Python allows between digits.
std::string WithoutUnderscores(std::string_view text) {
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool skips = text[i] == '_' && i > 0 && i + 1 < text.size() &&
                       std::isalnum(static_cast<unsigned char>(text[i - 1])) &&
                       std::isalnum(static_cast<unsigned char>(text[i + 1]));
    if (!skips) digits += text[i];
  }
  return digits;
}

// The number that `text` spells, as Python's float() reads it.
std::optional<double> ParseNumber(std::string_view text) {
  std::string digits = WithoutUnderscores(Strip(text, "", Side::kBoth));
  if (digits.starts_with('+')) {
    digits.erase(0, 1);
    if (digits.starts_with('-')) return std::nullopt;
  }
  double number = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error == std::errc::invalid_argument ||
      end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  // Too large or too small: infinity or 0.
  return error == std::errc() ? number : std::strtod(digits.c_str(), nullptr);
}

absl::Status IntegerTooLarge() {
  return InvalidArgument("the result is an integer beyond 64 bits");
}

// The integer that `text` spells, as Python's int() reads it; nullopt if none.
absl::StatusOr<std::optional<int64_t>> ParseInteger(std::string_view text,
                                                    int base) {
  text = Strip(text, "", Side::kBoth);
  const bool is_negative = text.starts_with('-');
  if (is_negative || text.starts_with('+')) text.remove_prefix(1);
  std::string digits = WithoutUnderscores(text);
  const std::string_view prefix = std::string_view(digits).substr(0, 2);
  if ((base == 16 && (prefix == "0x" || prefix == "0X")) ||
      (base == 8 && (prefix == "0o" || prefix == "0O")) ||
      (base == 2 && (prefix == "0b" || prefix == "0B"))) {
    digits.erase(0, 2);
  }
  if (digits.starts_with('-')) return std::nullopt;
  if (is_negative) digits.insert(0, "-");
  int64_t integer = 0;
  const auto [end, error] = std::from_chars(
      digits.data(), digits.data() + digits.size(), integer, base);
  if (error == std::errc::invalid_argument ||
      end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  if (error != std::errc()) return IntegerTooLarge();
  return integer;
}

absl::StatusOr<Value> Truncated(double number) {
  // 2^63, the first number that does not fit.
  if (std::abs(number) < 9223372036854775808.0) {
    return Value(static_cast<int64_t>(number));
  }
  return IntegerTooLarge();
}

absl::StatusOr<Value> ToInt(const Value& input, const CallArguments& arguments,
                            CallContext* context) {
  if (const std::string* text = input.text()) {
    RETURN_IF_ERROR(context->budget.Work(text->size()));
  }
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"default", "base"}, "int"));
  RETURN_IF_ERROR(RequireDefined(input));
  ASSIGN_OR_RETURN(const int64_t base, IntegerOr(bound[1], 10, "base"));
  if (base < 2 || base > 36) {
    return InvalidArgument("a base from 2 to 36 is needed, not {}", base);
  }
  const Value otherwise = bound[0].value_or(Value(int64_t{0}));
  int64_t integer = 0;
  if (input.ToInteger(&integer)) return Value(integer);
  if (input.is_number()) {
    if (std::isnan(input.number())) return otherwise;
    return Truncated(input.number());
  }
  if (input.text() == nullptr) return otherwise;
  ASSIGN_OR_RETURN(const auto spelled,
                   ParseInteger(*input.text(), static_cast<int>(base)));
  if (spelled.has_value()) return Value(*spelled);
  const std::optional<double> number = ParseNumber(*input.text());
  if (!number.has_value() || !std::isfinite(*number)) return otherwise;
  return Truncated(*number);
}

absl::StatusOr<Value> ToFloat(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  if (const std::string* text = input.text()) {
    RETURN_IF_ERROR(context->budget.Work(text->size()));
  }
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"default"}, "float"));
  RETURN_IF_ERROR(RequireDefined(input));
  if (input.is_number()) return Value(input.number());
  if (const std::string* text = input.text()) {
    if (const auto number = ParseNumber(*text)) return Value(*number);
  }
  return bound[0].value_or(Value(0.0));
}

absl::StatusOr<Value> Abs(const Value& input, const CallArguments& arguments,
                          CallContext*) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "abs").status());
  RETURN_IF_ERROR(RequireDefined(input));
  int64_t integer = 0;
  if (input.ToInteger(&integer)) {
    if (integer == std::numeric_limits<int64_t>::min()) {
      return IntegerTooLarge();
    }
    return Value(std::abs(integer));
  }
  if (input.is_number()) return Value(std::abs(input.number()));
  return InvalidArgument("abs needs a number, not {}", input.type_name());
}

// Halves go to the even neighbour, of the exact binary value.
double RoundTo(double number, int64_t precision) {
  if (precision >= 0) {
    return std::strtod(fmt::format("{:.{}f}", number, precision).c_str(),
                       nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(number / unit) * unit;
}

absl::StatusOr<Value> Round(const Value& input, const CallArguments& arguments,
                            CallContext*) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"precision", "method"}, "round"));
  RETURN_IF_ERROR(RequireDefined(input));
  ASSIGN_OR_RETURN(const int64_t precision,
                   IntegerOr(bound[0], 0, "precision"));
  if (std::abs(precision) > kMaxTemplateDigits) {
    return InvalidArgument("precision {} exceeds the limit of {}", precision,
                           kMaxTemplateDigits);
  }
  if (!input.is_number()) {
    return InvalidArgument("round needs a number, not {}", input.type_name());
  }
  const std::string* named = bound[1].has_value() ? bound[1]->text() : nullptr;
  const std::string method = !bound[1].has_value() ? "common"
                             : named != nullptr    ? *named
                                                   : "";
  const double number = input.number();
  if (method == "ceil" || method == "floor") {
    const double unit = std::pow(10.0, static_cast<double>(precision));
    const double scaled = number * unit;
    return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) /
                 unit);
  }
  if (method != "common") {
    return InvalidArgument("round takes the methods common, ceil and floor");
  }
  if (!std::isfinite(number)) return input;
  if (input.As<double>() != nullptr) return Value(RoundTo(number, precision));
  int64_t integer = 0;
  input.ToInteger(&integer);
  if (precision >= 0) return Value(integer);
  return Truncated(RoundTo(number, precision));
}

// --- More of text ------------------------------------------------------------

absl::StatusOr<Value> Center(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"width"}, "center"));
  ASSIGN_OR_RETURN(const std::string text, ToText(input, &context->budget));
  const Value width = bound[0].value_or(Value(int64_t{80}));
  return CallTextMethod(text, "center", {{width}, {}}, context);
}

absl::StatusOr<Value> Format(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  ASSIGN_OR_RETURN(const std::string format, ToText(input, &context->budget));
  if (arguments.named.empty()) {
    ASSIGN_OR_RETURN(const Value tuple,
                     Value::List(arguments.positional, ListKind::kTuple));
    return FormatPercent(format, tuple, &context->budget);
  }
  if (!arguments.positional.empty()) {
    return InvalidArgument("format takes arguments with names or without");
  }
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [name, value] : arguments.named) {
    entries.emplace_back(Value(name), value);
  }
  ASSIGN_OR_RETURN(const Value dict, Value::Dict(std::move(entries)));
  return FormatPercent(format, dict, &context->budget);
}

absl::StatusOr<Value> Truncate(const Value& input,
                               const CallArguments& arguments,
                               CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"length", "killwords", "end", "leeway"},
                    "truncate"));
  const std::string* text = input.text();
  if (text == nullptr) {
    return InvalidArgument("truncate needs a str, not {}", input.type_name());
  }
  ASSIGN_OR_RETURN(const int64_t length, IntegerOr(bound[0], 255, "length"));
  ASSIGN_OR_RETURN(const int64_t leeway, IntegerOr(bound[3], 5, "leeway"));
  std::string end = "...";
  if (bound[2].has_value()) {
    ASSIGN_OR_RETURN(end, ToText(*bound[2], &context->budget));
  }
  const int64_t end_length = static_cast<int64_t>(CountUtf8(end));
  if (length < end_length || leeway < 0) {
    return InvalidArgument("truncate to {} characters with an end of {}",
                           length, end_length);
  }
  RETURN_IF_ERROR(context->budget.Work(text->size()));
  const int64_t size = static_cast<int64_t>(CountUtf8(*text));
  if (size - leeway <= length) return input;
  size_t offset = 0;
  for (int64_t i = 0; i < length - end_length; ++i) DecodeUtf8(*text, &offset);
  std::string kept = text->substr(0, offset);
  const bool keeps_words = !bound[1].has_value() || !bound[1]->truth();
  const size_t space = kept.rfind(' ');
  if (keeps_words && space != std::string::npos) kept.resize(space);
  return Value(kept + end);
}

absl::StatusOr<Value> WordCount(const Value& input,
                                const CallArguments& arguments,
                                CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "wordcount").status());
  ASSIGN_OR_RETURN(const std::string text, ToText(input, &context->budget));
  int64_t num_words = 0;
  bool in_word = false;
  for (size_t offset = 0; offset < text.size();) {
    const char32_t character = DecodeUtf8(text, &offset);
    const bool is_word =
        character == '_' || IsLetter(character) || IsNumeric(character);
    num_words += is_word && !in_word ? 1 : 0;
    in_word = is_word;
  }
  return Value(num_words);
}

// --- Any value ---------------------------------------------------------------

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

const std::map<std::string_view, FilterFunction>& Filters() {
  static const std::map<std::string_view, FilterFunction> kFilters = {
      {"abs", Abs},
      {"capitalize", TextFilter<Capitalize>},
      {"center", Center},
      {"count", Length},
      {"d", Default},
      {"default", Default},
      {"float", ToFloat},
      {"format", Format},
      {"indent", Indent},
      {"int", ToInt},
      {"join", Join},
      {"length", Length},
      {"lower", TextFilter<ToLower>},
      {"replace", Replace},
      {"round", Round},
      {"safe", Safe},
      {"string", TextFilter<Identity>},
      {"title", TextFilter<ToTitleWords>},
      {"tojson", Tojson},
      {"trim", Trim},
      {"truncate", Truncate},
      {"upper", TextFilter<ToUpper>},
      {"wordcount", WordCount},
  };
  return kFilters;
}

FilterFunction FindFilter(std::string_view name) {
  const auto found = Filters().find(name);
  return found != Filters().end() ? found->second : FindSequenceFilter(name);
}

}  // namespace

bool HasFilter(std::string_view name) { return FindFilter(name) != nullptr; }

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

absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input,
                                  const CallArguments& arguments,
                                  CallContext* context) {
  RETURN_IF_ERROR(context->budget.Step());
  const FilterFunction filter = FindFilter(name);
  if (filter == nullptr) {
    return InvalidArgument("there is no filter '{}'", name);
  }
  if (++context->depth > kMaxTemplateDepth) {
    return InvalidArgument("filters nested deeper than {} levels",
                           kMaxTemplateDepth);
  }
  absl::StatusOr<Value> result = filter(input, arguments, context);
  --context->depth;
  if (result.ok() && input.is_safe() && KeepsSafe(name)) {
    return Value::Safe(*result->text());
  }
  return result;
}

}  // namespace witan::jinja

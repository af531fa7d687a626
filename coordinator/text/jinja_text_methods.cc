// Methods of str.

#include <algorithm>
#include <limits>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

absl::StatusOr<Value> TextList(absl::StatusOr<std::vector<std::string>> parts) {
  RETURN_IF_ERROR(parts.status());
  std::vector<Value> items;
  items.reserve(parts->size());
  for (std::string& part : *parts) items.emplace_back(std::move(part));
  return Value::List(std::move(items));
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
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 1, name));
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
    return TextList(name == "split"
                        ? SplitWords(text, limit, &context->budget)
                        : SplitWordsFromRight(text, limit, &context->budget));
  }
  if (separator->empty()) return InvalidArgument("empty separator");
  const auto split = name == "split" ? SplitText : SplitTextFromRight;
  return TextList(split(text, *separator, limit, &context->budget));
}

// The part of a text that start and end cut out, as for a slice.
struct Part {
  std::string_view text;
  int64_t start = 0;     // in characters of the whole
  bool is_valid = true;  // false: start lies behind the end
};

absl::StatusOr<Part> PartOf(const std::string& text,
                            const std::optional<Value>& start,
                            const std::optional<Value>& end,
                            std::string_view callee) {
  ASSIGN_OR_RETURN(const int64_t first, IntegerOr(start, 0, callee));
  ASSIGN_OR_RETURN(const int64_t last,
                   IntegerOr(end, std::numeric_limits<int64_t>::max(), callee));
  if (first == 0 && last == std::numeric_limits<int64_t>::max()) {
    return Part{text, 0, true};
  }
  const int64_t size = static_cast<int64_t>(CountUtf8(text));
  const auto place = [size](int64_t index) {
    return index < 0 ? std::max<int64_t>(index + size, 0) : index;
  };
  Part part;
  part.start = place(first);
  const int64_t stop = std::min(place(last), size);
  part.is_valid = part.start <= stop;
  if (!part.is_valid) return part;
  size_t begin = 0;
  for (int64_t i = 0; i < part.start; ++i) DecodeUtf8(text, &begin);
  size_t offset = begin;
  for (int64_t i = part.start; i < stop; ++i) DecodeUtf8(text, &offset);
  part.text = std::string_view(text).substr(begin, offset - begin);
  return part;
}

absl::StatusOr<Value> AffixMethod(const std::string& text,
                                  std::string_view name,
                                  const CallArguments& arguments,
                                  CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 3, name));
  if (!bound[0].has_value()) return InvalidArgument("{} needs a str", name);
  ASSIGN_OR_RETURN(const Part part, PartOf(text, bound[1], bound[2], name));
  std::vector<Value> affixes = {*bound[0]};
  if (bound[0]->list() != nullptr && bound[0]->list()->is_tuple()) {
    ASSIGN_OR_RETURN(affixes, Iterate(*bound[0], &context->budget));
  }
  for (const Value& affix : affixes) {
    ASSIGN_OR_RETURN(const std::string* wanted, RequireText(affix, name));
    RETURN_IF_ERROR(context->budget.Work(sizeof(Value) + wanted->size()));
    if (part.is_valid &&
        (name == "startswith" ? part.text.starts_with(*wanted)
                              : part.text.ends_with(*wanted))) {
      return Value(true);
    }
  }
  return Value(false);
}

absl::StatusOr<Value> ReplaceMethod(const std::string& text,
                                    const CallArguments& arguments,
                                    CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 3, "replace"));
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

// find, rfind, index, rindex and count.
absl::StatusOr<Value> SearchMethod(const std::string& text,
                                   std::string_view name,
                                   const CallArguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 3, name));
  ASSIGN_OR_RETURN(const std::string* wanted, RequireText(bound[0], name));
  ASSIGN_OR_RETURN(const Part part, PartOf(text, bound[1], bound[2], name));
  if (name == "count") {
    if (!part.is_valid) return Value(int64_t{0});
    if (!wanted->empty()) return Value(CountText(part.text, *wanted));
    return Value(static_cast<int64_t>(CountUtf8(part.text)) + 1);
  }
  size_t offset = std::string_view::npos;
  if (part.is_valid) {
    offset = name.starts_with('r') ? FindTextFromRight(part.text, *wanted)
                                   : FindText(part.text, *wanted, 0);
  }
  if (offset != std::string_view::npos) {
    return Value(part.start +
                 static_cast<int64_t>(CountUtf8(part.text.substr(0, offset))));
  }
  if (name.ends_with("find")) return Value(int64_t{-1});
  return InvalidArgument("{} of a text that is not in the other", name);
}

absl::StatusOr<Value> RemoveMethod(const std::string& text,
                                   std::string_view name,
                                   const CallArguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 1, name));
  ASSIGN_OR_RETURN(const std::string* wanted, RequireText(bound[0], name));
  if (name == "removeprefix" && text.starts_with(*wanted)) {
    return Value(text.substr(wanted->size()));
  }
  if (name == "removesuffix" && text.ends_with(*wanted)) {
    return Value(text.substr(0, text.size() - wanted->size()));
  }
  return Value(text);
}

absl::StatusOr<Value> PartitionMethod(const std::string& text,
                                      std::string_view name,
                                      const CallArguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 1, name));
  ASSIGN_OR_RETURN(const std::string* separator, RequireText(bound[0], name));
  if (separator->empty()) return InvalidArgument("empty separator");
  const bool from_right = name == "rpartition";
  const size_t offset = from_right ? FindTextFromRight(text, *separator)
                                   : FindText(text, *separator, 0);
  std::vector<Value> parts;
  if (offset != std::string::npos) {
    parts = {Value(text.substr(0, offset)), Value(*separator),
             Value(text.substr(offset + separator->size()))};
  } else if (from_right) {
    parts = {Value(std::string()), Value(std::string()), Value(text)};
  } else {
    parts = {Value(text), Value(std::string()), Value(std::string())};
  }
  return Value::List(std::move(parts), ListKind::kTuple);
}

// ljust, rjust, center and zfill.
absl::StatusOr<Value> PadMethod(const std::string& text, std::string_view name,
                                const CallArguments& arguments,
                                CallContext* context) {
  const bool is_zfill = name == "zfill";
  ASSIGN_OR_RETURN(const auto bound,
                   BindPositional(arguments, is_zfill ? 1 : 2, name));
  if (!bound[0].has_value() || bound[0]->is_none()) {
    return InvalidArgument("{} needs a width", name);
  }
  ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[0], 0, "width"));
  std::string fill = is_zfill ? "0" : " ";
  if (!is_zfill && bound[1].has_value()) {
    ASSIGN_OR_RETURN(const std::string* given, RequireText(bound[1], name));
    if (CountUtf8(*given) != 1) {
      return InvalidArgument("{} fills with one character", name);
    }
    fill = *given;
  }
  const int64_t size = static_cast<int64_t>(CountUtf8(text));
  if (width <= size) return Value(text);
  RETURN_IF_ERROR(context->budget.Work(
      static_cast<size_t>(std::min(width - size, kMaxTemplateWorkBytes)) *
      fill.size()));
  const int64_t padding = width - size;
  // The odd one goes where Python puts it.
  const int64_t left = name == "ljust"    ? 0
                       : name == "center" ? padding / 2 + (padding & width & 1)
                                          : padding;
  std::string result;
  size_t sign_bytes = 0;
  if (is_zfill && (text.starts_with('-') || text.starts_with('+'))) {
    sign_bytes = 1;
  }
  result += text.substr(0, sign_bytes);
  for (int64_t i = 0; i < left; ++i) result += fill;
  result += text.substr(sign_bytes);
  for (int64_t i = left; i < padding; ++i) result += fill;
  return Value(std::move(result));
}

std::string SwapCase(std::string_view text) {
  std::string result;
  for (size_t offset = 0; offset < text.size();) {
    const size_t begin = offset;
    const bool is_upper = IsUpper(DecodeUtf8(text, &offset));
    const std::string_view character = text.substr(begin, offset - begin);
    result += is_upper ? ToLower(character) : ToUpper(character);
  }
  return result;
}

absl::StatusOr<Value> JoinMethod(const std::string& text,
                                 const CallArguments& arguments,
                                 CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound, BindPositional(arguments, 1, "join"));
  if (!bound[0].has_value()) return InvalidArgument("join needs a list");
  ASSIGN_OR_RETURN(auto items, Iterate(*bound[0], &context->budget));
  for (const Value& item : items) {
    if (item.text() == nullptr) {
      return InvalidArgument("join needs items of type str, not {}",
                             item.type_name());
    }
  }
  ASSIGN_OR_RETURN(const Value list, Value::List(std::move(items)));
  return ApplyFilter("join", list, {{Value(text)}, {}}, context);
}

}  // namespace

bool IsTextMethod(std::string_view name) {
  static const std::set<std::string_view> kMethods = {
      "capitalize", "casefold",  "center",       "count",        "endswith",
      "find",       "format",    "index",        "isalnum",      "isalpha",
      "isascii",    "isdecimal", "isdigit",      "islower",      "isnumeric",
      "isspace",    "isupper",   "join",         "ljust",        "lower",
      "lstrip",     "partition", "removeprefix", "removesuffix", "replace",
      "rfind",      "rindex",    "rjust",        "rpartition",   "rsplit",
      "rstrip",     "split",     "splitlines",   "startswith",   "strip",
      "swapcase",   "title",     "upper",        "zfill"};
  return kMethods.contains(name);
}

absl::StatusOr<Value> IsOfKind(std::string_view name, std::string_view text) {
  bool (*is_kind)(char32_t) = nullptr;
  if (name == "isupper" || name == "islower") {
    const bool upper = name == "isupper";
    bool has_case = false;
    for (size_t offset = 0; offset < text.size();) {
      const char32_t character = DecodeUtf8(text, &offset);
      if (upper ? IsLower(character) : IsUpper(character)) return Value(false);
      has_case |= upper ? IsUpper(character) : IsLower(character);
    }
    return Value(has_case);
  }
  if (name == "isascii") {
    return Value(std::all_of(text.begin(), text.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x80;
    }));
  }
  if (name == "isalpha") is_kind = IsLetter;
  if (name == "isspace") is_kind = IsPythonSpace;
  if (name == "isdecimal" || name == "isdigit") is_kind = IsDecimal;
  if (name == "isnumeric") is_kind = IsNumeric;
  if (name == "isalnum") {
    is_kind = [](char32_t c) { return IsLetter(c) || IsNumeric(c); };
  }
  if (is_kind == nullptr) return InvalidArgument("no method '{}'", name);
  for (size_t offset = 0; offset < text.size();) {
    if (!is_kind(DecodeUtf8(text, &offset))) return Value(false);
  }
  return Value(!text.empty());
}

absl::StatusOr<Value> CallTextMethod(const std::string& text,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context) {
  RETURN_IF_ERROR(context->budget.Work(text.size()));
  if (name == "splitlines") {
    ASSIGN_OR_RETURN(const auto bound,
                     BindArguments(arguments, {"keepends"}, name));
    const bool keeps_ends = bound[0].has_value() && bound[0]->truth();
    return TextList(SplitLines(text, keeps_ends, &context->budget));
  }
  if (name.ends_with("strip")) {
    return StripMethod(text, name, arguments, context);
  }
  if (name.ends_with("split")) {
    return SplitMethod(text, name, arguments, context);
  }
  if (name.ends_with("with")) {
    return AffixMethod(text, name, arguments, context);
  }
  if (name.ends_with("partition")) {
    return PartitionMethod(text, name, arguments);
  }
  if (name.ends_with("just") || name == "center" || name == "zfill") {
    return PadMethod(text, name, arguments, context);
  }
  if (name.starts_with("remove")) return RemoveMethod(text, name, arguments);
  if (name.ends_with("find") || name.ends_with("index") || name == "count") {
    return SearchMethod(text, name, arguments);
  }
  if (name == "replace") return ReplaceMethod(text, arguments, context);
  if (name == "join") return JoinMethod(text, arguments, context);
  if (name == "format") {
    return FormatBraces(text, arguments, &context->budget);
  }
  RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
  if (name.starts_with("is")) return IsOfKind(name, text);
  if (name == "upper") return Value(ToUpper(text));
  if (name == "lower") return Value(ToLower(text));
  if (name == "casefold") return Value(ToCaseFold(text));
  if (name == "swapcase") return Value(SwapCase(text));
  if (name == "title") return Value(ToTitle(text));
  return Value(Capitalize(text));
}

}  // namespace witan::jinja

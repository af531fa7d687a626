// Python's two ways to format text: `format % values` and str.format().

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

constexpr std::string_view kFloatTypes = "eEfFgG%";

// How one value is written: [[fill]align][sign][#][0][width][,][.precision]
// [type], of which % has a part.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > ^ =, or none
  char sign = '-';
  bool is_alternative = false;
  char grouping = '\0';  // , or _
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

absl::Status CheckDigits(int64_t precision) {
  if (precision <= kMaxTemplateDigits) return absl::OkStatus();
  return InvalidArgument("precision {} exceeds the limit of {}", precision,
                         kMaxTemplateDigits);
}

// The digits at `*offset`, which moves behind them; -1 if there are none.
absl::StatusOr<int64_t> TakeNumber(std::string_view text, size_t* offset) {
  int64_t number = -1;
  const char* begin = text.data() + *offset;
  const auto [end, error] =
      std::from_chars(begin, text.data() + text.size(), number);
  if (*offset == text.size() || *begin == '-' ||
      error == std::errc::invalid_argument) {
    return -1;
  }
  if (error != std::errc() || number > kMaxTemplateWorkBytes) {
    return InvalidArgument("a width or precision is too large in '{}'",
                           text.substr(0, kMaxQuotedBytes));
  }
  *offset += static_cast<size_t>(end - begin);
  return number;
}

std::string WithGroups(std::string digits, const Spec& spec) {
  if (spec.grouping == '\0') return digits;
  const size_t stop = digits.find_first_not_of("0123456789abcdefABCDEF");
  const size_t size = std::min(stop, digits.size());
  const size_t group = spec.type == 'x' || spec.type == 'X' ||
                               spec.type == 'b' || spec.type == 'o'
                           ? 4
                           : 3;
  for (size_t i = size; i > group; i -= group) {
    digits.insert(i - group, 1, spec.grouping);
  }
  return digits;
}

// `body` behind `prefix` (a sign, "0x"), filled up to the width.
absl::StatusOr<std::string> Pad(std::string prefix, std::string body,
                                const Spec& spec, char usual_align,
                                Budget* budget) {
  const char align = spec.align != '\0' ? spec.align : usual_align;
  const int64_t size = static_cast<int64_t>(CountUtf8(prefix + body));
  const int64_t padding = std::max<int64_t>(spec.width - size, 0);
  RETURN_IF_ERROR(budget->Work(static_cast<size_t>(padding) * 4 + body.size()));
  const int64_t left = align == '<' ? 0 : align == '^' ? padding / 2 : padding;
  std::string filled;
  for (int64_t i = 0; i < left; ++i) filled += spec.fill;
  std::string result =
      align == '=' ? prefix + filled + body : filled + prefix + body;
  for (int64_t i = left; i < padding; ++i) result += spec.fill;
  return result;
}

std::string SignOf(bool is_negative, const Spec& spec) {
  if (is_negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string FloatBody(double number, const Spec& spec) {
  const double size = std::abs(number);
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return "inf";
  const int precision = static_cast<int>(spec.precision);
  switch (spec.type) {
    case '\0':
      if (precision < 0) return FormatFloat(size);
      break;
    case 'e':
    case 'E':
      return fmt::format("{:.{}e}", size, precision < 0 ? 6 : precision);
    case '%':
      return fmt::format("{:.{}f}%", size * 100, precision < 0 ? 6 : precision);
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", size, precision < 0 ? 6 : precision);
    default:
      break;
  }
  const int num_digits = precision < 0 ? 6 : std::max(precision, 1);
  std::string text = fmt::format("{:.{}g}", size, num_digits);
  // Without a type a number stays a float to look at.
  if (spec.type == '\0' && text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text;
}

absl::StatusOr<std::string> FormatFloating(double number, const Spec& spec,
                                           Budget* budget) {
  RETURN_IF_ERROR(CheckDigits(spec.precision));
  std::string body = WithGroups(FloatBody(number, spec), spec);
  if (spec.type == 'E' || spec.type == 'F' || spec.type == 'G') {
    body = ToUpper(body);
  }
  const bool is_negative = std::signbit(number) && !std::isnan(number);
  return Pad(SignOf(is_negative, spec), std::move(body), spec, '>', budget);
}

absl::StatusOr<std::string> FormatInteger(int64_t number, const Spec& spec,
                                          Budget* budget) {
  const uint64_t size = number < 0 ? uint64_t{0} - static_cast<uint64_t>(number)
                                   : static_cast<uint64_t>(number);
  std::string prefix = SignOf(number < 0, spec);
  std::string body;
  switch (spec.type) {
    case 'x':
    case 'X':
      body = spec.type == 'x' ? fmt::format("{:x}", size)
                              : fmt::format("{:X}", size);
      break;
    case 'o':
      body = fmt::format("{:o}", size);
      break;
    case 'b':
      body = fmt::format("{:b}", size);
      break;
    default:
      body = fmt::format("{}", size);
  }
  if (spec.is_alternative &&
      std::string_view("xXob").find(spec.type) != std::string_view::npos) {
    prefix += {'0', spec.type};
  }
  return Pad(std::move(prefix), WithGroups(std::move(body), spec), spec, '>',
             budget);
}

absl::StatusOr<std::string> FormatText(std::string_view text, const Spec& spec,
                                       Budget* budget) {
  size_t offset = 0;
  if (spec.precision >= 0) {
    for (int64_t i = 0; i < spec.precision && offset < text.size(); ++i) {
      DecodeUtf8(text, &offset);
    }
    text = text.substr(0, offset);
  }
  return Pad("", std::string(text), spec, '<', budget);
}

// repr(): the text of a list of the value, without the brackets.
absl::StatusOr<std::string> Repr(const Value& value, Budget* budget) {
  ASSIGN_OR_RETURN(const Value list, Value::List({value}));
  ASSIGN_OR_RETURN(const std::string text, ToText(list, budget));
  return text.substr(1, text.size() - 2);
}

// --- format % values ---------------------------------------------------------

// Hands out the values on the right of %.
class PercentValues {
 public:
  PercentValues(const Value& values, Budget* budget)
      : values_(values), budget_(budget) {}

  absl::StatusOr<Value> Next() {
    const ListData* tuple = values_.list();
    if (tuple != nullptr && tuple->is_tuple()) {
      if (num_used_ < tuple->items.size()) return tuple->items[num_used_++];
    } else if (num_used_++ == 0) {
      return values_;
    }
    return InvalidArgument("fewer values than the format wants");
  }

  absl::StatusOr<Value> Named(const std::string& name) {
    if (values_.dict() == nullptr) {
      return InvalidArgument("a format with names needs a dict");
    }
    ++num_used_;
    for (const auto& [key, value] : values_.dict()->entries) {
      ASSIGN_OR_RETURN(const bool equal, Equal(key, Value(name), budget_));
      if (equal) return value;
    }
    return InvalidArgument("the format wants '{}', which is missing",
                           name.substr(0, kMaxQuotedBytes));
  }

  absl::Status CheckAllUsed() const {
    const ListData* list = values_.list();
    const bool is_tuple = list != nullptr && list->is_tuple();
    const bool may_be_left =
        values_.dict() != nullptr || (list != nullptr && !is_tuple);
    const size_t num_values = is_tuple ? list->items.size() : 1;
    if (may_be_left || num_used_ >= num_values) return absl::OkStatus();
    return InvalidArgument("more values than the format wants");
  }

 private:
  const Value& values_;
  Budget* budget_;
  size_t num_used_ = 0;
};

absl::StatusOr<int64_t> TakeWidth(std::string_view text, size_t* offset,
                                  PercentValues* values) {
  if (*offset >= text.size() || text[*offset] != '*') {
    return TakeNumber(text, offset);
  }
  ++*offset;
  ASSIGN_OR_RETURN(const Value value, values->Next());
  ASSIGN_OR_RETURN(const int64_t width, IntegerOr(value, 0, "* in a format"));
  if (width < 0 || width > kMaxTemplateWorkBytes) {
    return InvalidArgument("* in a format stands for {}", width);
  }
  return width;
}

absl::StatusOr<std::string> FormatOne(const Value& value, Spec spec,
                                      Budget* budget) {
  if (spec.type == 's' || spec.type == 'r') {
    ASSIGN_OR_RETURN(const std::string text, spec.type == 's'
                                                 ? ToText(value, budget)
                                                 : Repr(value, budget));
    if (spec.align == '\0' || spec.align == '=') spec.align = '>';
    spec.fill = " ";
    return FormatText(text, spec, budget);
  }
  if (spec.type == 'c' && value.text() != nullptr &&
      CountUtf8(*value.text()) == 1) {
    return *value.text();
  }
  if (!value.is_number()) {
    return InvalidArgument("%{} needs a number, not {}", spec.type,
                           value.type_name());
  }
  if (kFloatTypes.find(spec.type) != std::string_view::npos) {
    return FormatFloating(value.number(), spec, budget);
  }
  if (spec.precision >= 0) {
    return InvalidArgument("a precision of %{} is not supported", spec.type);
  }
  int64_t integer = 0;
  if (!value.ToInteger(&integer)) {
    const bool is_decimal =
        spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
    if (!is_decimal || std::abs(value.number()) >= 9223372036854775808.0 ||
        std::isnan(value.number())) {
      return InvalidArgument("%{} needs an integer within 64 bits", spec.type);
    }
    integer = static_cast<int64_t>(value.number());
  }
  return FormatInteger(integer, spec, budget);
}

// One "%..." at `*offset`, behind the %.
absl::StatusOr<std::string> FormatField(const std::string& format,
                                        size_t* offset, PercentValues* values,
                                        Budget* budget) {
  std::optional<Value> named;
  if (*offset < format.size() && format[*offset] == '(') {
    const size_t end = format.find(')', *offset);
    if (end == std::string::npos) return InvalidArgument("'%(' without ')'");
    ASSIGN_OR_RETURN(
        named, values->Named(format.substr(*offset + 1, end - *offset - 1)));
    *offset = end + 1;
  }
  Spec spec;
  constexpr std::string_view kFlags = "#0- +";
  bool fills_with_zeros = false;
  for (; *offset < format.size() &&
         kFlags.find(format[*offset]) != std::string_view::npos;
       ++*offset) {
    const char flag = format[*offset];
    if (flag == '-') spec.align = '<';
    if (flag == '0') fills_with_zeros = true;
    if (flag == '#') spec.is_alternative = true;
    if (flag == '+' || (flag == ' ' && spec.sign == '-')) spec.sign = flag;
  }
  if (fills_with_zeros && spec.align == '\0') {
    spec.align = '=';
    spec.fill = "0";
  }
  ASSIGN_OR_RETURN(spec.width, TakeWidth(format, offset, values));
  if (*offset < format.size() && format[*offset] == '.') {
    ++*offset;
    ASSIGN_OR_RETURN(const int64_t precision,
                     TakeWidth(format, offset, values));
    spec.precision = std::max<int64_t>(precision, 0);
  }
  if (*offset >= format.size()) return InvalidArgument("incomplete format");
  spec.type = format[(*offset)++];
  if (spec.type == '%') return std::string("%");
  if (std::string_view("diouxXeEfFgGcrs").find(spec.type) ==
      std::string_view::npos) {
    return InvalidArgument("unsupported format character behind %");
  }
  if (named.has_value()) return FormatOne(*named, spec, budget);
  ASSIGN_OR_RETURN(const Value value, values->Next());
  return FormatOne(value, spec, budget);
}

// --- str.format() ------------------------------------------------------------

absl::StatusOr<Spec> ParseSpec(std::string_view text) {
  constexpr std::string_view kAligns = "<>^=";
  const auto at = [&](size_t offset, std::string_view wanted) {
    return offset < text.size() &&
           wanted.find(text[offset]) != std::string_view::npos;
  };
  Spec spec;
  size_t offset = 0;
  if (!text.empty()) {
    size_t next = 0;
    DecodeUtf8(text, &next);
    if (at(next, kAligns)) {
      spec.fill = text.substr(0, next);
      offset = next;
    }
  }
  if (at(offset, kAligns)) spec.align = text[offset++];
  if (at(offset, "+- ")) spec.sign = text[offset++];
  if (at(offset, "#")) spec.is_alternative = text[offset++] == '#';
  if (at(offset, "0")) {
    if (spec.align == '\0') {
      spec.align = '=';
      spec.fill = "0";
    }
    ++offset;
  }
  ASSIGN_OR_RETURN(const int64_t width, TakeNumber(text, &offset));
  spec.width = std::max<int64_t>(width, 0);
  if (at(offset, ",_")) spec.grouping = text[offset++];
  if (at(offset, ".")) {
    ++offset;
    ASSIGN_OR_RETURN(spec.precision, TakeNumber(text, &offset));
    if (spec.precision < 0) return InvalidArgument("format without precision");
  }
  if (offset < text.size()) spec.type = text[offset++];
  if (offset < text.size()) {
    return InvalidArgument("invalid format specifier '{}'",
                           text.substr(0, kMaxQuotedBytes));
  }
  return spec;
}

absl::StatusOr<std::string> FormatWith(const Value& value,
                                       std::string_view spec_text,
                                       Budget* budget) {
  if (spec_text.empty()) return ToText(value, budget);
  ASSIGN_OR_RETURN(Spec spec, ParseSpec(spec_text));
  if (spec.grouping != '\0' && spec.align == '=') {
    return InvalidArgument("a filled number with groups is not supported: '{}'",
                           spec_text.substr(0, kMaxQuotedBytes));
  }
  const auto is_type = [&spec](std::string_view types) {
    return spec.type == '\0' || types.find(spec.type) != std::string_view::npos;
  };
  if (const std::string* text = value.text()) {
    const bool is_zero_filled = spec.align == '=' && spec.fill == "0";
    if (is_zero_filled) spec.align = '<';
    if (is_type("s") && spec.sign == '-' && !spec.is_alternative &&
        spec.align != '=' && spec.grouping == '\0') {
      return FormatText(*text, spec, budget);
    }
  } else if (value.is_number() && spec.type != '\0' &&
             kFloatTypes.find(spec.type) != std::string_view::npos) {
    return FormatFloating(value.number(), spec, budget);
  } else if (value.As<double>() != nullptr && spec.type == '\0') {
    return FormatFloating(value.number(), spec, budget);
  } else if (int64_t integer = 0; value.ToInteger(&integer) &&
                                  is_type("dboxX") && spec.precision < 0) {
    return FormatInteger(integer, spec, budget);
  }
  return InvalidArgument("format specifier '{}' does not fit a {}",
                         spec_text.substr(0, kMaxQuotedBytes),
                         value.type_name());
}

class BraceFormatter {
 public:
  BraceFormatter(const CallArguments& arguments, Budget* budget)
      : arguments_(arguments), budget_(budget) {}

  // `depth` counts the fields inside of format specifiers.
  absl::StatusOr<std::string> Format(std::string_view format, int depth) {
    if (depth > 1 && !format.empty())
      return InvalidArgument("format fields nested too deep");
    std::string result;
    size_t offset = 0;
    while (offset < format.size()) {
      const char c = format[offset++];
      const bool is_doubled = offset < format.size() && format[offset] == c;
      if ((c == '{' || c == '}') && is_doubled) ++offset;
      if (c != '{' || is_doubled) {
        if (c == '}' && !is_doubled) {
          return InvalidArgument("a single '}}' in a format");
        }
        result += c;
        continue;
      }
      ASSIGN_OR_RETURN(const size_t end, FieldEnd(format, offset));
      ASSIGN_OR_RETURN(const std::string field,
                       Field(format.substr(offset, end - offset), depth));
      RETURN_IF_ERROR(budget_->Work(field.size()));
      result += field;
      offset = end + 1;
    }
    return result;
  }

 private:
  // Where the brace that closes the field from `begin` on stands.
  absl::StatusOr<size_t> FieldEnd(std::string_view format, size_t begin) {
    int num_open = 1;
    for (size_t i = begin; i < format.size(); ++i) {
      if (format[i] == '{') ++num_open;
      if (format[i] == '}' && --num_open == 0) return i;
    }
    return InvalidArgument("a single '{{' in a format");
  }

  absl::StatusOr<std::string> Field(std::string_view field, int depth) {
    size_t name_end = 0;
    bool in_brackets = false;
    while (
        name_end < field.size() &&
        (in_brackets || (field[name_end] != '!' && field[name_end] != ':'))) {
      if (field[name_end] == '[') in_brackets = true;
      if (field[name_end] == ']') in_brackets = false;
      ++name_end;
    }
    ASSIGN_OR_RETURN(Value value, Look(field.substr(0, name_end)));
    std::string_view rest = field.substr(name_end);
    if (rest.starts_with('!')) {
      const std::string_view conversion = rest.substr(0, 2);
      rest.remove_prefix(conversion.size());
      if ((conversion != "!r" && conversion != "!s") ||
          (!rest.empty() && rest[0] != ':')) {
        return InvalidArgument("a format converts by !r or !s only");
      }
      ASSIGN_OR_RETURN(std::string text, conversion == "!r"
                                             ? Repr(value, budget_)
                                             : ToText(value, budget_));
      value = Value(std::move(text));
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    ASSIGN_OR_RETURN(const std::string spec, Format(rest, depth + 1));
    return FormatWith(value, spec, budget_);
  }

  // "0", "name", "", and then ".attribute" and "[key]".
  absl::StatusOr<Value> Look(std::string_view path) {
    const size_t head_end = std::min(path.find_first_of(".["), path.size());
    ASSIGN_OR_RETURN(Value value, Argument(path.substr(0, head_end)));
    path = path.substr(head_end);
    while (!path.empty()) {
      if (path[0] == '.') {
        const size_t end = std::min(path.find_first_of(".[", 1), path.size());
        ASSIGN_OR_RETURN(value,
                         GetAttribute(value, path.substr(1, end - 1), budget_));
        path = path.substr(end);
      } else {
        const size_t end = path.find(']');
        if (path[0] != '[' || end == std::string_view::npos) {
          return InvalidArgument("a field name in a format is broken");
        }
        const std::string key(path.substr(1, end - 1));
        int64_t index = 0;
        const auto [stop, error] =
            std::from_chars(key.data(), key.data() + key.size(), index);
        const bool is_index = error == std::errc() && index >= 0 &&
                              stop == key.data() + key.size();
        ASSIGN_OR_RETURN(
            value,
            GetItem(value, is_index ? Value(index) : Value(key), budget_));
        path = path.substr(end + 1);
      }
    }
    return value;
  }

  absl::StatusOr<Value> Argument(std::string_view name) {
    size_t index = 0;
    const auto [end, error] =
        std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_number =
        error == std::errc() && end == name.data() + name.size();
    if (name.empty() || is_number) {
      // Numbered ones and those without a number do not mix.
      if (counts_.value_or(name.empty()) != name.empty()) {
        return InvalidArgument("a format numbers all of its fields or none");
      }
      counts_ = name.empty();
      if (name.empty()) index = num_counted_++;
      if (index < arguments_.positional.size()) {
        return arguments_.positional[index];
      }
      return InvalidArgument("the format wants more than {} values",
                             arguments_.positional.size());
    }
    for (const auto& [known, value] : arguments_.named) {
      if (known == name) return value;
    }
    return InvalidArgument("the format wants '{}', which is missing",
                           name.substr(0, kMaxQuotedBytes));
  }

  const CallArguments& arguments_;
  Budget* budget_;
  std::optional<bool> counts_;
  size_t num_counted_ = 0;
};

}  // namespace

absl::StatusOr<Value> FormatPercent(const std::string& format,
                                    const Value& arguments, Budget* budget) {
  RETURN_IF_ERROR(budget->Work(format.size()));
  PercentValues values(arguments, budget);
  std::string result;
  size_t offset = 0;
  while (offset < format.size()) {
    const char c = format[offset++];
    if (c != '%') {
      result += c;
      continue;
    }
    ASSIGN_OR_RETURN(const std::string field,
                     FormatField(format, &offset, &values, budget));
    RETURN_IF_ERROR(budget->Work(field.size()));
    result += field;
  }
  RETURN_IF_ERROR(values.CheckAllUsed());
  return Value(std::move(result));
}

absl::StatusOr<Value> FormatBraces(const std::string& format,
                                   const CallArguments& arguments,
                                   Budget* budget) {
  RETURN_IF_ERROR(budget->Work(format.size()));
  ASSIGN_OR_RETURN(std::string text,
                   BraceFormatter(arguments, budget).Format(format, 0));
  return Value(std::move(text));
}

}  // namespace witan::jinja

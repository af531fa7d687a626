#include <algorithm>
#include <cmath>
#include <limits>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/jinja_builtins.h"

namespace witan::jinja {

namespace {

absl::Status Overflow() {
  return InvalidArgument("the result is an integer beyond 64 bits");
}

// Python rounds the quotient down and gives the remainder the divisor's sign.
int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

absl::StatusOr<Value> FloatPower(double base, double exponent) {
  if (base == 0 && exponent < 0) return InvalidArgument("division by zero");
  const double power = std::pow(base, exponent);
  const bool is_usual = std::isfinite(base) && std::isfinite(exponent);
  if (is_usual && std::isnan(power)) {
    return InvalidArgument("the result is a complex number");
  }
  if (is_usual && std::isinf(power)) {
    return InvalidArgument("the result is beyond the largest float");
  }
  return Value(power);
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    return FloatPower(static_cast<double>(base), static_cast<double>(exponent));
  }
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(int64_t{exponent % 2 == 0 ? 1 : -1});
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) {  // ends by overflow after 63
    if (__builtin_mul_overflow(result, base, &result)) return Overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> OfIntegers(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) return Overflow();
    return Value(result);
  }
  if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) return Overflow();
    return Value(result);
  }
  if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) return Overflow();
    return Value(result);
  }
  if (op == "**") return IntegerPower(a, b);
  if (b == 0) return InvalidArgument("division by zero");
  if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // the quotient of the least integer does not fit
    if (op == "%") return Value(int64_t{0});
    if (a == std::numeric_limits<int64_t>::min()) return Overflow();
    return Value(-a);
  }
  const int64_t quotient = FloorDivide(a, b);
  return Value(op == "//" ? quotient : a - quotient * b);
}

absl::StatusOr<Value> OfNumbers(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return FloatPower(a, b);
  if (b == 0) return InvalidArgument("division by zero");
  if (op == "/") return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == "%") return Value(remainder);
  return Value(std::floor((a - remainder) / b + 0.5));
}

constexpr size_t kLongestEscapeBytes = 5;  // &#39;

std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      case '"':
        escaped += "&#34;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

absl::StatusOr<Value> AddSafe(const Value& left, const Value& right,
                              Budget* budget) {
  RETURN_IF_ERROR(budget->Work((left.text()->size() + right.text()->size()) *
                               kLongestEscapeBytes));
  const auto part = [](const Value& value) {
    return value.is_safe() ? *value.text() : Escape(*value.text());
  };
  return Value::Safe(part(left) + part(right));
}

// A text or list `count` times.
absl::StatusOr<Value> Repeat(const Value& value, int64_t count,
                             Budget* budget) {
  count = std::max<int64_t>(count, 0);
  const std::string* text = value.text();
  const size_t size = text != nullptr
                          ? text->size()
                          : value.list()->items.size() * sizeof(Value);
  if (size == 0 || count == 0) {
    if (text != nullptr) return Value(std::string());
    return Value::List({}, value.list()->kind);
  }
  if (static_cast<uint64_t>(count) > kMaxTemplateWorkBytes / size) {
    return budget->Work(static_cast<size_t>(kMaxTemplateWorkBytes) + 1);
  }
  RETURN_IF_ERROR(budget->Work(size * static_cast<size_t>(count)));
  std::string repeated;
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    if (text != nullptr) {
      repeated += *text;
    } else {
      items.insert(items.end(), value.list()->items.begin(),
                   value.list()->items.end());
    }
  }
  if (value.is_safe()) return Value::Safe(std::move(repeated));
  if (text != nullptr) return Value(std::move(repeated));
  return Value::List(std::move(items), value.list()->kind);
}

}  // namespace

absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& left,
                                 const Value& right, Budget* budget) {
  RETURN_IF_ERROR(RequireDefined(left));
  if (op != "%" || left.text() == nullptr) {  // '%s' % undefined is fine
    RETURN_IF_ERROR(RequireDefined(right));
  }
  int64_t a = 0;
  int64_t b = 0;
  const bool left_is_integer = left.ToInteger(&a);
  const bool right_is_integer = right.ToInteger(&b);
  if (left_is_integer && right_is_integer) return OfIntegers(op, a, b);
  if (left.is_number() && right.is_number()) {
    return OfNumbers(op, left.number(), right.number());
  }
  if ((left.is_safe() || right.is_safe()) && op != "+" && op != "*") {
    return InvalidArgument("'{}' of a text that is safe is not supported", op);
  }
  if (op == "+" && left.text() != nullptr && right.text() != nullptr) {
    if (left.is_safe() || right.is_safe()) return AddSafe(left, right, budget);
    RETURN_IF_ERROR(budget->Work(left.text()->size() + right.text()->size()));
    return Value(*left.text() + *right.text());
  }
  if (op == "%" && left.text() != nullptr) {
    return FormatPercent(*left.text(), right, budget);
  }
  const ListData* first = left.list();
  const ListData* second = right.list();
  if (op == "+" && first != nullptr && second != nullptr &&
      ((first->is_list() && second->is_list()) ||
       (first->is_tuple() && second->is_tuple()))) {
    std::vector<Value> items = first->items;
    items.insert(items.end(), second->items.begin(), second->items.end());
    RETURN_IF_ERROR(budget->Work(items.size() * sizeof(Value)));
    return Value::List(std::move(items),
                       first->is_list() ? ListKind::kList : ListKind::kTuple);
  }
  const auto repeats = [](const Value& value) {
    return value.text() != nullptr ||
           (value.list() != nullptr &&
            (value.list()->is_list() || value.list()->is_tuple()));
  };
  if (op == "*" && repeats(left) && right_is_integer) {
    return Repeat(left, b, budget);
  }
  if (op == "*" && left_is_integer && repeats(right)) {
    return Repeat(right, a, budget);
  }
  return InvalidArgument("'{}' is not defined between {} and {}", op,
                         left.type_name(), right.type_name());
}

}  // namespace witan::jinja

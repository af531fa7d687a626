// Tests: what follows `is`, and the operators that compare.

#include <map>

#include "base/status.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

using TestFunction = bool (*)(const Value& value);

bool IsInteger(const Value& value) { return value.As<int64_t>() != nullptr; }
bool IsSequence(const Value& value) {
  return value.text() != nullptr || value.sequence() != nullptr ||
         value.dict() != nullptr || value.is_undefined();
}
bool IsIterable(const Value& value) {
  return IsSequence(value) || value.list() != nullptr ||
         value.iterator() != nullptr || value.loop() != nullptr;
}

const std::map<std::string_view, TestFunction>& SimpleTests() {
  static const std::map<std::string_view, TestFunction> kTests = {
      {"boolean", [](const Value& v) { return v.As<bool>() != nullptr; }},
      // Undefined has a method for it, which fails.
      {"callable",
       [](const Value& v) { return v.is_callable() || v.is_undefined(); }},
      {"defined", [](const Value& v) { return !v.is_undefined(); }},
      {"false", [](const Value& v) { return v.As<bool>() && !*v.As<bool>(); }},
      {"float", [](const Value& v) { return v.As<double>() != nullptr; }},
      {"integer", IsInteger},
      {"iterable", IsIterable},
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

// `value % divisor == remainder`, with Python's %.
absl::StatusOr<bool> HasRemainder(const Value& value, const Value& divisor,
                                  int64_t remainder, Budget* budget) {
  ASSIGN_OR_RETURN(const Value rest, Arithmetic("%", value, divisor, budget));
  return Equal(rest, Value(remainder), budget);
}

// `is lower` and `is upper`: has a letter with case, and none of the other.
absl::StatusOr<bool> HasOnlyCase(bool upper, const Value& value,
                                 Budget* budget) {
  ASSIGN_OR_RETURN(const std::string text, ToText(value, budget));
  ASSIGN_OR_RETURN(const Value holds,
                   IsOfKind(upper ? "isupper" : "islower", text));
  return holds.truth();
}

// `is` of Python, for what a template can tell apart.
absl::StatusOr<bool> IsSame(const Value& value, const Value& other,
                            Budget* budget) {
  if (value.type_name() != other.type_name()) return false;
  return Equal(value, other, budget);
}

absl::StatusOr<bool> TestPair(std::string_view op, const Value& value,
                              const Value& other, Budget* budget) {
  if (op == "==") return Equal(value, other, budget);
  if (op == "in") return Contains(other, value, budget);
  if (op == "!=") {
    ASSIGN_OR_RETURN(const bool equal, Equal(value, other, budget));
    return !equal;
  }
  if (op == "sameas") return IsSame(value, other, budget);
  if (op == "divisibleby") return HasRemainder(value, other, 0, budget);
  RETURN_IF_ERROR(RequireDefined(value));
  RETURN_IF_ERROR(RequireDefined(other));
  ASSIGN_OR_RETURN(const int order, Compare(value, other, budget));
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

}  // namespace

bool HasTest(std::string_view name) {
  return SimpleTests().contains(name) || name == "even" || name == "odd" ||
         name == "lower" || name == "upper" || name == "filter" ||
         name == "test" || !OperatorOf(name).empty();
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
    return HasRemainder(value, Value(int64_t{2}), name == "even" ? 0 : 1,
                        &context->budget);
  }
  if (name == "lower" || name == "upper") {
    RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
    return HasOnlyCase(name == "upper", value, &context->budget);
  }
  if (name == "filter" || name == "test") {
    RETURN_IF_ERROR(BindArguments(arguments, {}, name).status());
    if (value.text() == nullptr) return false;
    return name == "filter" ? HasFilter(*value.text()) : HasTest(*value.text());
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

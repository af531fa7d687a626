// Slices, and calls with their arguments.

#include <algorithm>
#include <optional>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/jinja_interpreter.h"

namespace witan::jinja {

namespace {

// A range of indices of a range is a range. The numbers stay near those of the
// first one, which has at most kMaxTemplateRange items.
absl::StatusOr<Value> SliceRange(const ListData& range, int64_t start,
                                 int64_t stop, int64_t step) {
  const auto at = [&](int64_t index, int64_t* number) {
    return !__builtin_mul_overflow(index, range.step, number) &&
           !__builtin_add_overflow(*number, range.start, number);
  };
  int64_t first = 0;
  int64_t end = 0;
  int64_t stride = 0;
  if (!at(start, &first) || !at(stop, &end) ||
      __builtin_mul_overflow(step, range.step, &stride)) {
    return InvalidArgument("the slice of a range has integers beyond 64 bits");
  }
  return Value::Range(first, end, stride);
}

}  // namespace

absl::StatusOr<Value> Interpreter::Slice(const Value& value,
                                         const Suffix& suffix, Scope* scope) {
  RETURN_IF_ERROR(RequireDefined(value));
  if (value.text() == nullptr && value.sequence() == nullptr) {
    return InvalidArgument("a value of type {} cannot be sliced",
                           value.type_name());
  }
  std::optional<int64_t> bounds[3];
  for (int i = 0; i < 3; ++i) {
    if (suffix.slice[i] == nullptr) continue;
    ASSIGN_OR_RETURN(const Value bound, Evaluate(*suffix.slice[i], scope));
    int64_t integer = 0;
    if (bound.is_none()) continue;
    if (!bound.ToInteger(&integer)) {
      return InvalidArgument("a slice needs integers, not {}",
                             bound.type_name());
    }
    bounds[i] = integer;
  }
  ASSIGN_OR_RETURN(const auto items, Iterate(value, &context_.budget));
  const int64_t size = static_cast<int64_t>(items.size());
  const int64_t step = bounds[2].value_or(1);
  if (step == 0) return InvalidArgument("a slice with a step of 0");
  // Where a bound outside the sequence ends up depends on the direction.
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? size : size - 1;
  const auto place = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound.has_value()) return absent;
    const int64_t index = *bound < 0 ? *bound + size : *bound;
    return std::clamp(index, low, high);
  };
  const int64_t start = place(bounds[0], step > 0 ? low : high);
  const int64_t stop = place(bounds[1], step > 0 ? high : low);
  if (const ListData* list = value.list();
      list != nullptr && list->kind == ListKind::kRange) {
    return SliceRange(*list, start, stop, step);
  }
  std::vector<Value> chosen;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    chosen.push_back(items[i]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (value.list() != nullptr) {
    return Value::List(std::move(chosen), value.list()->is_tuple()
                                              ? ListKind::kTuple
                                              : ListKind::kList);
  }
  std::string text;
  for (const Value& character : chosen) text += *character.text();
  return Value(std::move(text));
}

absl::StatusOr<CallArguments> Interpreter::EvaluateArguments(
    const Arguments& arguments, Scope* scope) {
  CallArguments values;
  ASSIGN_OR_RETURN(values.positional, EvaluateAll(arguments.positional, scope));
  for (const auto& [name, expression] : arguments.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression, scope));
    values.named.emplace_back(name, std::move(value));
  }
  if (arguments.more_positional != nullptr) {
    ASSIGN_OR_RETURN(const Value list,
                     Evaluate(*arguments.more_positional, scope));
    ASSIGN_OR_RETURN(const auto items, Iterate(list, &context_.budget));
    values.positional.insert(values.positional.end(), items.begin(),
                             items.end());
  }
  if (arguments.more_named == nullptr) return values;
  ASSIGN_OR_RETURN(const Value dict, Evaluate(*arguments.more_named, scope));
  RETURN_IF_ERROR(RequireDefined(dict));
  if (dict.dict() == nullptr) {
    return InvalidArgument("** needs a dict, not {}", dict.type_name());
  }
  for (const auto& [key, value] : dict.dict()->entries) {
    if (key.text() == nullptr) {
      return InvalidArgument("** needs keys of type str, not {}",
                             key.type_name());
    }
    const auto is_same = [&key](const auto& known) {
      return known.first == *key.text();
    };
    RETURN_IF_ERROR(context_.budget.Work(
        sizeof(Value) * (values.named.size() + 1) + key.text()->size()));
    if (std::any_of(values.named.begin(), values.named.end(), is_same)) {
      return InvalidArgument("argument '{}' twice in one call", *key.text());
    }
    values.named.emplace_back(*key.text(), value);
  }
  return values;
}

absl::StatusOr<Value> Interpreter::Call(const Value& callee,
                                        const CallArguments& arguments) {
  RETURN_IF_ERROR(RequireDefined(callee));
  if (const MethodData* method = callee.method()) {
    return CallMethod(*method, arguments, &context_);
  }
  if (const Function* function = callee.As<Function>()) {
    return CallFunction(*function, arguments, &context_);
  }
  if (const MacroRef* macro = callee.As<MacroRef>()) {
    return CallMacro(*macro, arguments);
  }
  if (const LoopData* loop = callee.loop()) return CallLoop(*loop, arguments);
  return InvalidArgument("a value of type {} cannot be called",
                         callee.type_name());
}

absl::StatusOr<Value> Interpreter::CallLoop(const LoopData& loop,
                                            const CallArguments& arguments) {
  if (loop.recursive == nullptr) {
    return InvalidArgument("only the loop of a recursive for can be called");
  }
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"iterable"}, "loop"));
  if (!bound[0].has_value()) return InvalidArgument("loop needs an iterable");
  // The body may replace the value `loop`, and this with it.
  const Statement& statement = *loop.recursive;
  Scope* scope = loop.scope;
  const int64_t depth0 = loop.depth0 + 1;
  std::string text;
  std::string* outer = std::exchange(output_, &text);
  const absl::StatusOr<Flow> flow =
      RunLoop(statement, *bound[0], depth0, scope);
  output_ = outer;
  RETURN_IF_ERROR(flow.status());
  return Value(std::move(text));
}

absl::Status Interpreter::RunCall(const Statement& statement, Scope* scope) {
  const Expression& call = *statement.expression;
  ASSIGN_OR_RETURN(const Value callee,
                   ApplySuffixes(call, call.suffixes.size() - 1, scope));
  ASSIGN_OR_RETURN(CallArguments arguments,
                   EvaluateArguments(call.suffixes.back().arguments, scope));
  arguments.named.emplace_back("caller",
                               Value(MacroRef{statement.macro.get(), scope}));
  ASSIGN_OR_RETURN(const Value value, Call(callee, arguments));
  ASSIGN_OR_RETURN(const std::string text, ToText(value, &context_.budget));
  return Print(text);
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroRef& reference,
                                             const CallArguments& arguments) {
  const Macro& macro = *reference.macro;
  Scope scope(reference.scope);
  RETURN_IF_ERROR(BindParameters(macro, arguments, &scope));
  ASSIGN_OR_RETURN(std::string text, Capture(macro.body, &scope));
  return Value(std::move(text));
}

absl::Status Interpreter::BindParameters(const Macro& macro,
                                         const CallArguments& arguments,
                                         Scope* scope) {
  const size_t num_parameters = macro.parameters.size();
  // Once for the values, and once for each name that is looked for.
  RETURN_IF_ERROR(context_.budget.Work((arguments.named.size() + 1) *
                                       num_parameters * sizeof(Value)));
  const size_t num_bound =
      std::min(num_parameters, arguments.positional.size());
  std::vector<std::optional<Value>> bound(
      arguments.positional.begin(),
      arguments.positional.begin() + static_cast<std::ptrdiff_t>(num_bound));
  bound.resize(num_parameters);
  std::vector<Value> varargs(
      arguments.positional.begin() + static_cast<std::ptrdiff_t>(num_bound),
      arguments.positional.end());
  Value caller(Undefined{"there is no caller"});
  std::vector<std::pair<Value, Value>> kwargs;
  for (const auto& [name, value] : arguments.named) {
    const auto found =
        std::find(macro.parameters.begin(), macro.parameters.end(), name);
    const size_t index = found - macro.parameters.begin();
    if (found != macro.parameters.end() && !bound[index].has_value()) {
      bound[index] = value;
    } else if (name == "caller" && macro.takes_caller) {
      caller = value;
    } else if (macro.takes_kwargs) {
      kwargs.emplace_back(Value(name), value);
    } else {
      return InvalidArgument("macro '{}' takes no argument '{}', or not twice",
                             macro.name, name);
    }
  }
  if (!varargs.empty() && !macro.takes_varargs) {
    return InvalidArgument("macro '{}' takes {} arguments, got {}", macro.name,
                           num_parameters, arguments.positional.size());
  }
  const size_t first_default = num_parameters - macro.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    Value value(Undefined{
        fmt::format("parameter '{}' was not provided", macro.parameters[i])});
    if (bound[i].has_value()) {
      value = *std::move(bound[i]);
    } else if (i >= first_default) {
      ASSIGN_OR_RETURN(value,
                       Evaluate(*macro.defaults[i - first_default], scope));
    }
    scope->Set(macro.parameters[i], std::move(value));
  }
  if (macro.takes_caller) scope->Set("caller", std::move(caller));
  if (macro.takes_varargs) {
    ASSIGN_OR_RETURN(Value tuple,
                     Value::List(std::move(varargs), ListKind::kTuple));
    scope->Set("varargs", std::move(tuple));
  }
  if (macro.takes_kwargs) {
    ASSIGN_OR_RETURN(Value dict, Value::Dict(std::move(kwargs)));
    scope->Set("kwargs", std::move(dict));
  }
  return absl::OkStatus();
}

}  // namespace witan::jinja

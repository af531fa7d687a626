#include "coordinator/text/jinja_interpreter.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/status.h"

namespace witan::jinja {

const Value* Scope::Find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_) {
    const auto found = scope->variables_.find(name);
    if (found != scope->variables_.end()) return &found->second;
  }
  return nullptr;
}

void Scope::Set(std::string_view name, Value value) {
  const auto found = variables_.find(name);
  if (found != variables_.end()) {
    found->second = std::move(value);
  } else {
    variables_.emplace(name, std::move(value));
  }
}

absl::StatusOr<std::string> Interpreter::Render(
    const Body& body, std::vector<std::pair<std::string, Value>> variables) {
  Scope globals(nullptr);
  globals.Set("range", Value(Function::kRange));
  globals.Set("namespace", Value(Function::kNamespace));
  globals.Set("dict", Value(Function::kDict));
  globals.Set("raise_exception", Value(Function::kRaiseException));
  globals.Set("strftime_now", Value(Function::kStrftimeNow));
  for (auto& [name, value] : variables) globals.Set(name, std::move(value));
  Scope scope(&globals);
  absl::StatusOr<std::string> text = Capture(body, &scope);
  if (text.ok() || context_.refused) return text;
  return Annotate(text.status(), fmt::format("line {}", error_line_));
}

absl::Status Interpreter::EnterNested() {
  if (++depth_ <= kMaxTemplateEvaluationDepth) return absl::OkStatus();
  return ResourceExhausted("evaluation nested deeper than {} levels",
                           kMaxTemplateEvaluationDepth);
}

absl::Status Interpreter::Print(std::string_view text) {
  RETURN_IF_ERROR(context_.budget.Work(text.size()));
  if (output_->size() + text.size() > kMaxTemplateOutputBytes) {
    return ResourceExhausted("the template writes more than {} bytes",
                             kMaxTemplateOutputBytes);
  }
  *output_ += text;
  return absl::OkStatus();
}

absl::StatusOr<std::string> Interpreter::Capture(const Body& body,
                                                 Scope* scope) {
  std::string text;
  std::string* outer = std::exchange(output_, &text);
  const absl::StatusOr<Flow> flow = Run(body, scope);
  output_ = outer;
  RETURN_IF_ERROR(flow.status());
  return text;
}

// --- Statements
// ----------------------------------------------------------------

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Body& body,
                                                   Scope* scope) {
  for (const auto& statement : body) {
    absl::Status entered = EnterNested();
    if (entered.ok()) entered = context_.budget.Step();
    absl::StatusOr<Flow> flow =
        entered.ok() ? RunStatement(*statement, scope) : entered;
    --depth_;
    if (!flow.ok()) {
      NoteError(statement->line);
      return flow;
    }
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunStatement(
    const Statement& statement, Scope* scope) {
  switch (statement.kind) {
    case Statement::Kind::kText:
      RETURN_IF_ERROR(Print(statement.text));
      break;
    case Statement::Kind::kPrint: {
      ASSIGN_OR_RETURN(const Value value,
                       Evaluate(*statement.expression, scope));
      ASSIGN_OR_RETURN(const std::string text, ToText(value, &context_.budget));
      RETURN_IF_ERROR(Print(text));
      break;
    }
    case Statement::Kind::kIf:
      return RunIf(statement, scope);
    case Statement::Kind::kFor:
      return RunFor(statement, scope);
    case Statement::Kind::kSet:
      RETURN_IF_ERROR(RunSet(statement, scope));
      break;
    case Statement::Kind::kSetBlock:
      RETURN_IF_ERROR(RunSetBlock(statement, scope));
      break;
    case Statement::Kind::kMacro:
      scope->Set(statement.macro->name,
                 Value(MacroRef{statement.macro.get(), scope}));
      break;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
    case Statement::Kind::kGroup:
      return Run(statement.bodies[0], scope);
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunIf(const Statement& statement,
                                                     Scope* scope) {
  for (size_t i = 0; i < statement.conditions.size(); ++i) {
    ASSIGN_OR_RETURN(const Value condition,
                     Evaluate(*statement.conditions[i], scope));
    if (condition.truth()) return Run(statement.bodies[i], scope);
  }
  if (statement.bodies.size() == statement.conditions.size()) {
    return Flow::kNext;
  }
  return Run(statement.bodies.back(), scope);
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(
    const Statement& statement, Scope* scope) {
  ASSIGN_OR_RETURN(const Value iterable,
                   Evaluate(*statement.expression, scope));
  ASSIGN_OR_RETURN(std::vector<Value> items,
                   Iterate(iterable, &context_.budget));
  if (statement.conditions.empty()) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    Scope tested(scope);
    RETURN_IF_ERROR(Assign(statement.target, item, &tested));
    ASSIGN_OR_RETURN(const Value condition,
                     Evaluate(*statement.conditions[0], &tested));
    if (condition.truth()) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunFor(
    const Statement& statement, Scope* scope) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, LoopItems(statement, scope));
  const int64_t size = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < size; ++i) {
    RETURN_IF_ERROR(context_.budget.Step());
    Scope body_scope(scope);
    auto loop = std::make_shared<LoopData>();
    loop->index0 = i;
    loop->length = size;
    loop->previous =
        i > 0 ? items[i - 1] : Value(Undefined{"there is no previous item"});
    loop->next =
        i + 1 < size ? items[i + 1] : Value(Undefined{"there is no next item"});
    body_scope.Set("loop",
                   Value(std::shared_ptr<const LoopData>(std::move(loop))));
    RETURN_IF_ERROR(Assign(statement.target, items[i], &body_scope));
    ASSIGN_OR_RETURN(const Flow flow, Run(statement.bodies[0], &body_scope));
    if (flow == Flow::kBreak) break;
  }
  if (size == 0 && statement.bodies.size() > 1) {
    return Run(statement.bodies[1], scope);
  }
  return Flow::kNext;
}

absl::Status Interpreter::RunSet(const Statement& statement, Scope* scope) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression, scope));
  return Assign(statement.target, std::move(value), scope);
}

absl::Status Interpreter::RunSetBlock(const Statement& statement,
                                      Scope* scope) {
  Scope body_scope(scope);
  ASSIGN_OR_RETURN(std::string text, Capture(statement.bodies[0], &body_scope));
  Value value(std::move(text));
  for (const Suffix& filter : statement.filters) {
    ASSIGN_OR_RETURN(value, ApplySuffix(value, filter, scope));
  }
  return Assign(statement.target, std::move(value), scope);
}

absl::Status Interpreter::Assign(const Target& target, Value value,
                                 Scope* scope) {
  if (!target.attribute.empty()) {
    const Value* object = scope->Find(target.names[0]);
    NamespaceData* data = object == nullptr ? nullptr : object->name_space();
    if (data == nullptr) {
      return InvalidArgument(
          "'{}' is no namespace; only attributes of those "
          "can be set",
          target.names[0]);
    }
    RETURN_IF_ERROR(RequireStorable(value));
    data->attributes[target.attribute] = std::move(value);
    return absl::OkStatus();
  }
  if (!target.is_tuple) {
    scope->Set(target.names[0], std::move(value));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, &context_.budget));
  if (items.size() != target.names.size()) {
    return InvalidArgument("{} values for {} names", items.size(),
                           target.names.size());
  }
  for (size_t i = 0; i < items.size(); ++i) {
    scope->Set(target.names[i], std::move(items[i]));
  }
  return absl::OkStatus();
}

// --- Expressions
// ---------------------------------------------------------------

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression,
                                            Scope* scope) {
  absl::Status entered = EnterNested();
  if (entered.ok()) entered = context_.budget.Step();
  absl::StatusOr<Value> value =
      entered.ok() ? EvaluateNode(expression, scope) : entered;
  --depth_;
  if (!value.ok()) NoteError(expression.line);
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const Expression& expression,
                                                Scope* scope) {
  using Kind = Expression::Kind;
  switch (expression.kind) {
    case Kind::kLiteral:
      return expression.literal;
    case Kind::kName: {
      const Value* value = scope->Find(expression.name);
      if (value != nullptr) return *value;
      return Value(
          Undefined{fmt::format("'{}' is undefined", expression.name)});
    }
    case Kind::kList:
    case Kind::kTuple: {
      ASSIGN_OR_RETURN(auto items, EvaluateAll(expression.children, scope));
      return Value::List(std::move(items), expression.kind == Kind::kTuple);
    }
    case Kind::kDict:
      return EvaluateDict(expression, scope);
    case Kind::kAnd:
    case Kind::kOr:
      return EvaluateLogic(expression, scope);
    case Kind::kNot: {
      ASSIGN_OR_RETURN(const Value value,
                       Evaluate(*expression.children[0], scope));
      return Value(!value.truth());
    }
    case Kind::kNegate:
    case Kind::kPlus: {
      ASSIGN_OR_RETURN(const Value value,
                       Evaluate(*expression.children[0], scope));
      return Arithmetic(expression.kind == Kind::kNegate ? "-" : "+",
                        value.As<double>() ? Value(-0.0) : Value(int64_t{0}),
                        value, &context_.budget);
    }
    case Kind::kArithmetic:
      return EvaluateArithmetic(expression, scope);
    case Kind::kConcatenate:
      return EvaluateConcatenation(expression, scope);
    case Kind::kCompare:
      return EvaluateComparison(expression, scope);
    case Kind::kConditional:
      return EvaluateConditional(expression, scope);
    case Kind::kSuffixed:
      return EvaluateSuffixed(expression, scope);
  }
  WITAN_CHECK(false, "expression of kind {}",
              static_cast<int>(expression.kind));
}

absl::StatusOr<std::vector<Value>> Interpreter::EvaluateAll(
    const std::vector<ExpressionPtr>& expressions, Scope* scope) {
  RETURN_IF_ERROR(context_.budget.Work(expressions.size() * sizeof(Value)));
  std::vector<Value> values;
  values.reserve(expressions.size());
  for (const ExpressionPtr& expression : expressions) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression, scope));
    values.push_back(std::move(value));
  }
  return values;
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression,
                                                Scope* scope) {
  ASSIGN_OR_RETURN(auto values, EvaluateAll(expression.children, scope));
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i < values.size(); i += 2) {
    RETURN_IF_ERROR(PutEntry(std::move(values[i]), std::move(values[i + 1]),
                             &context_.budget, &entries));
  }
  return Value::Dict(std::move(entries));
}

absl::StatusOr<Value> Interpreter::EvaluateLogic(const Expression& expression,
                                                 Scope* scope) {
  const bool stops_at = expression.kind == Expression::Kind::kOr;
  Value value;
  for (const ExpressionPtr& child : expression.children) {
    ASSIGN_OR_RETURN(value, Evaluate(*child, scope));
    if (value.truth() == stops_at) break;
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateArithmetic(
    const Expression& expression, Scope* scope) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*expression.children[0], scope));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    ASSIGN_OR_RETURN(const Value operand,
                     Evaluate(*expression.children[i + 1], scope));
    ASSIGN_OR_RETURN(value, Arithmetic(expression.operators[i], value, operand,
                                       &context_.budget));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateConcatenation(
    const Expression& expression, Scope* scope) {
  std::string text;
  for (const ExpressionPtr& child : expression.children) {
    ASSIGN_OR_RETURN(const Value value, Evaluate(*child, scope));
    ASSIGN_OR_RETURN(const std::string part, ToText(value, &context_.budget));
    text += part;
  }
  return Value(std::move(text));
}

absl::StatusOr<Value> Interpreter::EvaluateComparison(
    const Expression& expression, Scope* scope) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expression.children[0], scope));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    const std::string& op = expression.operators[i];
    ASSIGN_OR_RETURN(Value right, Evaluate(*expression.children[i + 1], scope));
    const bool negated = op == "not in";
    ASSIGN_OR_RETURN(const bool holds, ApplyTest(negated ? "in" : op, left,
                                                 {{right}, {}}, &context_));
    if (holds == negated) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(
    const Expression& expression, Scope* scope) {
  ASSIGN_OR_RETURN(const Value condition,
                   Evaluate(*expression.children[1], scope));
  if (condition.truth()) return Evaluate(*expression.children[0], scope);
  if (expression.children.size() > 2) {
    return Evaluate(*expression.children[2], scope);
  }
  return Value(Undefined{"an inline if without else was false"});
}

absl::StatusOr<Value> Interpreter::EvaluateSuffixed(
    const Expression& expression, Scope* scope) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*expression.children[0], scope));
  for (const Suffix& suffix : expression.suffixes) {
    RETURN_IF_ERROR(context_.budget.Step());
    absl::StatusOr<Value> next = ApplySuffix(value, suffix, scope);
    if (!next.ok()) {
      NoteError(suffix.line);
      return next;
    }
    value = *std::move(next);
  }
  return value;
}

absl::StatusOr<Value> Interpreter::ApplySuffix(const Value& value,
                                               const Suffix& suffix,
                                               Scope* scope) {
  switch (suffix.kind) {
    case Suffix::Kind::kAttribute:
      return GetAttribute(value, suffix.name, &context_.budget);
    case Suffix::Kind::kItem: {
      ASSIGN_OR_RETURN(const Value key, Evaluate(*suffix.item, scope));
      return GetItem(value, key, &context_.budget);
    }
    case Suffix::Kind::kSlice:
      return Slice(value, suffix, scope);
    default:
      break;
  }
  ASSIGN_OR_RETURN(const CallArguments arguments,
                   EvaluateArguments(suffix.arguments, scope));
  if (suffix.kind == Suffix::Kind::kCall) return Call(value, arguments);
  if (suffix.kind == Suffix::Kind::kFilter) {
    return ApplyFilter(suffix.name, value, arguments, &context_);
  }
  ASSIGN_OR_RETURN(const bool holds,
                   ApplyTest(suffix.name, value, arguments, &context_));
  return Value(holds != suffix.negated);
}

absl::StatusOr<Value> Interpreter::Slice(const Value& value,
                                         const Suffix& suffix, Scope* scope) {
  RETURN_IF_ERROR(RequireDefined(value));
  if (value.text() == nullptr && value.list() == nullptr) {
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
  std::vector<Value> chosen;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    chosen.push_back(items[i]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (value.list() != nullptr) {
    return Value::List(std::move(chosen), value.list()->is_tuple);
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
  return InvalidArgument("a value of type {} cannot be called",
                         callee.type_name());
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroRef& reference,
                                             const CallArguments& arguments) {
  const Macro& macro = *reference.macro;
  const size_t num_parameters = macro.parameters.size();
  if (arguments.positional.size() > num_parameters) {
    return InvalidArgument("macro '{}' takes {} arguments, got {}", macro.name,
                           num_parameters, arguments.positional.size());
  }
  // Once for the values, and once for each name that is looked for.
  RETURN_IF_ERROR(context_.budget.Work((arguments.named.size() + 1) *
                                       num_parameters * sizeof(Value)));
  std::vector<std::optional<Value>> bound(num_parameters);
  std::copy(arguments.positional.begin(), arguments.positional.end(),
            bound.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto found =
        std::find(macro.parameters.begin(), macro.parameters.end(), name);
    if (found == macro.parameters.end()) {
      return InvalidArgument("macro '{}' has no parameter '{}'", macro.name,
                             name);
    }
    std::optional<Value>& slot = bound[found - macro.parameters.begin()];
    if (slot.has_value()) {
      return InvalidArgument("macro '{}' got argument '{}' twice", macro.name,
                             name);
    }
    slot = value;
  }
  Scope scope(reference.scope);
  const size_t first_default = num_parameters - macro.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    Value value(Undefined{
        fmt::format("parameter '{}' was not provided", macro.parameters[i])});
    if (bound[i].has_value()) {
      value = *std::move(bound[i]);
    } else if (i >= first_default) {
      ASSIGN_OR_RETURN(value,
                       Evaluate(*macro.defaults[i - first_default], &scope));
    }
    scope.Set(macro.parameters[i], std::move(value));
  }
  ASSIGN_OR_RETURN(std::string text, Capture(macro.body, &scope));
  return Value(std::move(text));
}

}  // namespace witan::jinja

#include "coordinator/text/jinja_interpreter.h"

#include <algorithm>

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

absl::StatusOr<std::string> Interpreter::Capture(const Body& body, Scope* scope,
                                                 Flow* flow) {
  std::string text;
  std::string* outer = std::exchange(output_, &text);
  const absl::StatusOr<Flow> end = Run(body, scope);
  output_ = outer;
  RETURN_IF_ERROR(end.status());
  if (flow != nullptr) *flow = *end;
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
    case Statement::Kind::kSetBlock:
      return RunSet(statement, scope);
    case Statement::Kind::kWith:
      return RunWith(statement, scope);
    case Statement::Kind::kFilter: {
      Scope body_scope(scope);
      Flow flow = Flow::kNext;
      ASSIGN_OR_RETURN(std::string body,
                       Capture(statement.bodies[0], &body_scope, &flow));
      if (flow != Flow::kNext) return flow;
      ASSIGN_OR_RETURN(const Value value,
                       ApplyFilters(statement, std::move(body), scope));
      ASSIGN_OR_RETURN(const std::string text, ToText(value, &context_.budget));
      RETURN_IF_ERROR(Print(text));
      break;
    }
    case Statement::Kind::kMacro:
      scope->Set(statement.macro->name,
                 Value(MacroRef{statement.macro.get(), scope}));
      break;
    case Statement::Kind::kCall:
      RETURN_IF_ERROR(RunCall(statement, scope));
      break;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
    case Statement::Kind::kGeneration: {
      Scope body_scope(scope);
      return Run(statement.bodies[0], &body_scope);
    }
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

absl::StatusOr<Interpreter::Flow> Interpreter::RunFor(
    const Statement& statement, Scope* scope) {
  ASSIGN_OR_RETURN(const Value iterable,
                   Evaluate(*statement.expression, scope));
  return RunLoop(statement, iterable, /*depth0=*/0, scope);
}

absl::StatusOr<bool> Interpreter::IsWanted(const Statement& statement,
                                           const Value& item, Scope* scope) {
  if (statement.conditions.empty()) return true;
  Scope tested(scope);
  RETURN_IF_ERROR(Assign(statement.targets[0], item, &tested));
  ASSIGN_OR_RETURN(const Value condition,
                   Evaluate(*statement.conditions[0], &tested));
  return condition.truth();
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunLoop(
    const Statement& statement, const Value& iterable, int64_t depth0,
    Scope* scope) {
  ASSIGN_OR_RETURN(std::vector<Value> items,
                   Iterate(iterable, &context_.budget));
  // The condition of an item may depend on what the body did for those before,
  // unless `loop` has to know the number of items.
  if (statement.reads_loop && !statement.conditions.empty()) {
    std::vector<Value> wanted;
    for (Value& item : items) {
      ASSIGN_OR_RETURN(const bool is_wanted, IsWanted(statement, item, scope));
      if (is_wanted) wanted.push_back(std::move(item));
    }
    items = std::move(wanted);
  }
  const auto item_or = [&](int64_t i, const char* otherwise) {
    return i >= 0 && i < static_cast<int64_t>(items.size())
               ? items[i]
               : Value(Undefined{otherwise});
  };
  const int64_t size = static_cast<int64_t>(items.size());
  const auto last_changed = std::make_shared<std::vector<Value>>();
  bool completed_one = false;
  for (int64_t i = 0; i < size; ++i) {
    RETURN_IF_ERROR(context_.budget.Step());
    Scope body_scope(scope);
    if (statement.reads_loop) {
      auto loop = std::make_shared<LoopData>();
      loop->index0 = i;
      loop->length = size;
      loop->depth0 = depth0;
      loop->previous = item_or(i - 1, "there is no previous item");
      loop->next = item_or(i + 1, "there is no next item");
      loop->recursive = statement.is_recursive ? &statement : nullptr;
      loop->scope = scope;
      loop->last_changed = last_changed;
      body_scope.Set("loop",
                     Value(std::shared_ptr<const LoopData>(std::move(loop))));
    } else {
      ASSIGN_OR_RETURN(const bool is_wanted,
                       IsWanted(statement, items[i], scope));
      if (!is_wanted) continue;
    }
    RETURN_IF_ERROR(Assign(statement.targets[0], items[i], &body_scope));
    ASSIGN_OR_RETURN(const Flow flow, Run(statement.bodies[0], &body_scope));
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNext) completed_one = true;
  }
  // As in Jinja, also when each iteration ended by break or continue.
  if (!completed_one && statement.bodies.size() > 1) {
    Scope else_scope(scope);
    return Run(statement.bodies[1], &else_scope);
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunSet(
    const Statement& statement, Scope* scope) {
  if (statement.kind == Statement::Kind::kSet) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression, scope));
    RETURN_IF_ERROR(Assign(statement.targets[0], std::move(value), scope));
    return Flow::kNext;
  }
  Scope body_scope(scope);
  Flow flow = Flow::kNext;
  ASSIGN_OR_RETURN(std::string text,
                   Capture(statement.bodies[0], &body_scope, &flow));
  if (flow != Flow::kNext) return flow;
  ASSIGN_OR_RETURN(Value value,
                   ApplyFilters(statement, std::move(text), scope));
  RETURN_IF_ERROR(Assign(statement.targets[0], std::move(value), scope));
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunWith(
    const Statement& statement, Scope* scope) {
  Scope body_scope(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*statement.conditions[i], scope));
    RETURN_IF_ERROR(
        Assign(statement.targets[i], std::move(value), &body_scope));
  }
  return Run(statement.bodies[0], &body_scope);
}

absl::StatusOr<Value> Interpreter::ApplyFilters(const Statement& statement,
                                                std::string text,
                                                Scope* scope) {
  Value value(std::move(text));
  for (const Suffix& filter : statement.filters) {
    ASSIGN_OR_RETURN(value, ApplySuffix(value, filter, scope));
  }
  return value;
}

absl::Status Interpreter::AssignAttribute(const Target& target, Value value,
                                          Scope* scope) {
  const Value* object = scope->Find(target.name);
  NamespaceData* data = object == nullptr ? nullptr : object->name_space();
  if (data == nullptr) {
    return InvalidArgument(
        "'{}' is no namespace; only attributes of those "
        "can be set",
        target.name);
  }
  if (target.attribute.starts_with('_')) {
    return InvalidArgument("'{}' begins with _, which no namespace stores",
                           target.attribute);
  }
  RETURN_IF_ERROR(RequireStorable(value));
  data->attributes[target.attribute] = std::move(value);
  return absl::OkStatus();
}

absl::Status Interpreter::Assign(const Target& target, Value value,
                                 Scope* scope) {
  if (!target.attribute.empty()) {
    return AssignAttribute(target, std::move(value), scope);
  }
  if (!target.name.empty()) {
    scope->Set(target.name, std::move(value));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, &context_.budget));
  if (items.size() != target.items.size()) {
    return InvalidArgument("{} values for {} names", items.size(),
                           target.items.size());
  }
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(Assign(target.items[i], std::move(items[i]), scope));
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
      return Value::List(std::move(items), expression.kind == Kind::kTuple
                                               ? ListKind::kTuple
                                               : ListKind::kList);
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
  return ApplySuffixes(expression, expression.suffixes.size(), scope);
}

absl::StatusOr<Value> Interpreter::ApplySuffixes(const Expression& expression,
                                                 size_t num_suffixes,
                                                 Scope* scope) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*expression.children[0], scope));
  for (size_t i = 0; i < num_suffixes; ++i) {
    const Suffix& suffix = expression.suffixes[i];
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

}  // namespace witan::jinja

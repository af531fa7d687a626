#ifndef WITAN_COORDINATOR_TEXT_JINJA_INTERPRETER_H_
#define WITAN_COORDINATOR_TEXT_JINJA_INTERPRETER_H_

#include <absl/status/statusor.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/text/jinja_ast.h"
#include "coordinator/text/jinja_builtins.h"

namespace witan::jinja {

// The names of one block; what is not found is looked for in the parent.
class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent) {}
  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value);

 private:
  Scope* parent_;  // null for the outermost
  // A template may have tens of thousands.
  std::map<std::string, Value, std::less<>> variables_;
};

// Runs a parsed template once. One thread; bounded by the limits named in
// base/limits.h for templates.
class Interpreter {
 public:
  explicit Interpreter(int64_t now_unix_seconds) {
    context_.now_unix_seconds = now_unix_seconds;
  }

  // The text that `body` makes of `variables`. Errors of the template name the
  // line; the message of raise_exception stays as it is.
  absl::StatusOr<std::string> Render(
      const Body& body, std::vector<std::pair<std::string, Value>> variables);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  absl::StatusOr<Flow> Run(const Body& body, Scope* scope);
  absl::StatusOr<Flow> RunStatement(const Statement& statement, Scope* scope);
  absl::StatusOr<Flow> RunIf(const Statement& statement, Scope* scope);
  absl::StatusOr<Flow> RunFor(const Statement& statement, Scope* scope);
  // A for loop over the items of `iterable`; `depth0` counts the calls of
  // recursive loops around it.
  absl::StatusOr<Flow> RunLoop(const Statement& statement,
                               const Value& iterable, int64_t depth0,
                               Scope* scope);
  absl::StatusOr<bool> IsWanted(const Statement& statement, const Value& item,
                                Scope* scope);
  absl::StatusOr<Flow> RunSet(const Statement& statement, Scope* scope);
  absl::StatusOr<Flow> RunWith(const Statement& statement, Scope* scope);
  // The filters of a block on its text.
  absl::StatusOr<Value> ApplyFilters(const Statement& statement,
                                     std::string text, Scope* scope);
  absl::Status RunCall(const Statement& statement, Scope* scope);
  absl::Status Assign(const Target& target, Value value, Scope* scope);
  absl::Status AssignAttribute(const Target& target, Value value, Scope* scope);
  absl::Status Print(std::string_view text);
  // Runs `body` with its output in a text of its own. A `flow` says how it
  // ended; only bodies that no break can leave do without.
  absl::StatusOr<std::string> Capture(const Body& body, Scope* scope,
                                      Flow* flow = nullptr);

  absl::StatusOr<Value> Evaluate(const Expression& expression, Scope* scope);
  absl::StatusOr<Value> EvaluateNode(const Expression& expression,
                                     Scope* scope);
  absl::StatusOr<std::vector<Value>> EvaluateAll(
      const std::vector<ExpressionPtr>& expressions, Scope* scope);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression,
                                     Scope* scope);
  absl::StatusOr<Value> EvaluateLogic(const Expression& expression,
                                      Scope* scope);
  absl::StatusOr<Value> EvaluateArithmetic(const Expression& expression,
                                           Scope* scope);
  absl::StatusOr<Value> EvaluateConcatenation(const Expression& expression,
                                              Scope* scope);
  absl::StatusOr<Value> EvaluateComparison(const Expression& expression,
                                           Scope* scope);
  absl::StatusOr<Value> EvaluateConditional(const Expression& expression,
                                            Scope* scope);
  absl::StatusOr<Value> EvaluateSuffixed(const Expression& expression,
                                         Scope* scope);
  // `value` with the first `num_suffixes` of those that follow it.
  absl::StatusOr<Value> ApplySuffixes(const Expression& expression,
                                      size_t num_suffixes, Scope* scope);
  absl::StatusOr<Value> ApplySuffix(const Value& value, const Suffix& suffix,
                                    Scope* scope);
  absl::StatusOr<Value> Slice(const Value& value, const Suffix& suffix,
                              Scope* scope);
  absl::StatusOr<CallArguments> EvaluateArguments(const Arguments& arguments,
                                                  Scope* scope);
  absl::StatusOr<Value> Call(const Value& callee,
                             const CallArguments& arguments);
  absl::StatusOr<Value> CallLoop(const LoopData& loop,
                                 const CallArguments& arguments);
  absl::StatusOr<Value> CallMacro(const MacroRef& macro,
                                  const CallArguments& arguments);
  // Sets the parameters of a macro, and the names that hold what has none.
  absl::Status BindParameters(const Macro& macro,
                              const CallArguments& arguments, Scope* scope);

  absl::Status EnterNested();
  // Remembers where the first error happened.
  void NoteError(int line) {
    if (error_line_ == 0) error_line_ = line;
  }

  CallContext context_;
  std::string* output_ = nullptr;
  int depth_ = 0;
  int error_line_ = 0;
};

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_INTERPRETER_H_

#ifndef WITAN_COORDINATOR_TEXT_JINJA_BUILTINS_H_
#define WITAN_COORDINATOR_TEXT_JINJA_BUILTINS_H_

// What a template can call: filters, tests, methods of values and functions.

#include <absl/status/statusor.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/text/jinja_value.h"

namespace witan::jinja {

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The arguments in the order of `parameters`, absent where not given.
// InvalidArgument for too many, unknown or repeated ones; `callee` names the
// callable in errors.
absl::StatusOr<std::vector<std::optional<Value>>> BindArguments(
    const CallArguments& arguments,
    std::initializer_list<std::string_view> parameters,
    std::string_view callee);

// One rendering, as far as builtins see it.
struct CallContext {
  Budget budget;
  int64_t now_unix_seconds = 0;
  int depth = 0;         // of filters that apply filters
  bool refused = false;  // raise_exception was called
};

// The same for callables of Python whose arguments have no names.
absl::StatusOr<std::vector<std::optional<Value>>> BindPositional(
    const CallArguments& arguments, size_t max_arguments,
    std::string_view callee);

bool HasFilter(std::string_view name);
bool HasTest(std::string_view name);

using FilterFunction = absl::StatusOr<Value> (*)(const Value& input,
                                                 const CallArguments& arguments,
                                                 CallContext* context);
// The filters of jinja_sequence_filters.cc; null for other names.
FilterFunction FindSequenceFilter(std::string_view name);

// InvalidArgument names unknown filters and tests and unfit values.
absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input,
                                  const CallArguments& arguments,
                                  CallContext* context);
absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value,
                               const CallArguments& arguments,
                               CallContext* context);
absl::StatusOr<Value> CallTextMethod(const std::string& text,
                                     std::string_view name,
                                     const CallArguments& arguments,
                                     CallContext* context);
absl::StatusOr<Value> CallMethod(const MethodData& method,
                                 const CallArguments& arguments,
                                 CallContext* context);
absl::StatusOr<Value> CallFunction(Function function,
                                   const CallArguments& arguments,
                                   CallContext* context);

bool IsTextMethod(std::string_view name);
// str.isalpha() and the like, of a text.
absl::StatusOr<Value> IsOfKind(std::string_view name, std::string_view text);

// `format % arguments` of Python, and str.format().
absl::StatusOr<Value> FormatPercent(const std::string& format,
                                    const Value& arguments, Budget* budget);
absl::StatusOr<Value> FormatBraces(const std::string& format,
                                   const CallArguments& arguments,
                                   Budget* budget);

// `left op right` for + - * / // % **.
absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& left,
                                 const Value& right, Budget* budget);

// The int or bool `value`, or `absent`, also for None; InvalidArgument for
// other types.
absl::StatusOr<int64_t> IntegerOr(const std::optional<Value>& value,
                                  int64_t absent, std::string_view what);

// `value.name`: a method, else a member; undefined when there is neither.
absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name,
                                   Budget* budget);
// `value[key]`: a member or item, else a method.
absl::StatusOr<Value> GetItem(const Value& value, const Value& key,
                              Budget* budget);

// The value at a path such as "function.name"; digits are indices of lists. An
// `otherwise` that is not None replaces what is undefined on the way.
absl::StatusOr<Value> GetPath(const Value& value, const Value& path,
                              Budget* budget, const Value& otherwise = Value());

// Adds an entry to those of a dict, or replaces the value of its key.
absl::Status PutEntry(Value key, Value value, Budget* budget,
                      std::vector<std::pair<Value, Value>>* entries);

// InvalidArgument saying what is undefined; OK for other values.
absl::Status RequireDefined(const Value& value);
// Whether the value may be kept in a namespace, list or dict.
absl::Status RequireStorable(const Value& value);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_BUILTINS_H_

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

// InvalidArgument names unknown filters and tests and unfit values.
absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input,
                                  const CallArguments& arguments,
                                  CallContext* context);
absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value,
                               const CallArguments& arguments,
                               CallContext* context);
absl::StatusOr<Value> CallMethod(const MethodData& method,
                                 const CallArguments& arguments,
                                 CallContext* context);
absl::StatusOr<Value> CallFunction(Function function,
                                   const CallArguments& arguments,
                                   CallContext* context);

// `value.name`: a method, else a member; undefined when there is neither.
absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name,
                                   Budget* budget);
// `value[key]`: a member or item, else a method.
absl::StatusOr<Value> GetItem(const Value& value, const Value& key,
                              Budget* budget);

// Adds an entry to those of a dict, or replaces the value of its key.
absl::Status PutEntry(Value key, Value value, Budget* budget,
                      std::vector<std::pair<Value, Value>>* entries);

// InvalidArgument saying what is undefined; OK for other values.
absl::Status RequireDefined(const Value& value);
// Whether the value may be kept in a namespace, list or dict.
absl::Status RequireStorable(const Value& value);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_BUILTINS_H_

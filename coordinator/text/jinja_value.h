#ifndef WITAN_COORDINATOR_TEXT_JINJA_VALUE_H_
#define WITAN_COORDINATOR_TEXT_JINJA_VALUE_H_

// The values of a running chat template, with the meaning that Python gives
// them: text is counted in characters, True prints as "True", and so on.

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/limits.h"

namespace witan::jinja {

// What one rendering may still spend; bounds its time and memory together.
class Budget {
 public:
  // One evaluated node.
  absl::Status Step();
  // `num_bytes` written or looked through.
  absl::Status Work(size_t num_bytes);

 private:
  int64_t steps_left_ = kMaxTemplateSteps;
  int64_t bytes_left_ = kMaxTemplateWorkBytes;
};

struct Macro;      // jinja_ast.h
class Scope;       // jinja_interpreter.h
struct Statement;  // jinja_ast.h
struct ListData;
struct DictData;
struct IteratorData;
struct NamespaceData;
struct LoopData;
struct MethodData;

// The result of a look-up that found nothing: prints as nothing, is false and
// empty, and fails in every other use. `what` describes it in errors.
struct Undefined {
  std::string what;
};
struct None {};

// Text that the filter `safe` made. It prints and compares as any text, but
// what is added to it with + has its HTML characters escaped, as Jinja does.
struct SafeText {
  std::shared_ptr<const std::string> text;
};

enum class Function {
  kRange,
  kNamespace,
  kDict,
  kRaiseException,
  kStrftimeNow
};

// Sequences, and the views of a dict, which have items but no indices. A kGroup
// is a tuple that the filter groupby makes.
enum class ListKind {
  kList,
  kTuple,
  kGroup,
  kRange,
  kDictKeys,
  kDictValues,
  kDictItems
};

// A macro and where its free names are looked up. REQUIRES: the scope lives as
// long as the value; therefore macros cannot be stored in other values.
struct MacroRef {
  const Macro* macro = nullptr;
  Scope* scope = nullptr;
};

// Cheap to copy; text, lists and dicts are shared and never change. Iterators
// and namespaces do; they belong to one rendering.
using ValueVariant = std::variant<
    Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
    std::shared_ptr<const ListData>, std::shared_ptr<const DictData>, SafeText,
    std::shared_ptr<IteratorData>, std::shared_ptr<NamespaceData>,
    std::shared_ptr<const LoopData>, std::shared_ptr<const MethodData>,
    Function, MacroRef>;

class Value {
 public:
  Value() : data_(None()) {}
  explicit Value(Undefined undefined) : data_(std::move(undefined)) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(std::string text)
      : data_(std::make_shared<const std::string>(std::move(text))) {}
  explicit Value(Function function) : data_(function) {}
  explicit Value(MacroRef macro) : data_(macro) {}
  explicit Value(std::shared_ptr<NamespaceData> data)
      : data_(std::move(data)) {}
  explicit Value(std::shared_ptr<const LoopData> data)
      : data_(std::move(data)) {}
  explicit Value(std::shared_ptr<const MethodData> data)
      : data_(std::move(data)) {}

  // InvalidArgument when nested deeper than kMaxTemplateDepth, or when a member
  // is a namespace, a macro or a loop.
  static absl::StatusOr<Value> List(std::vector<Value> items,
                                    ListKind kind = ListKind::kList);
  // REQUIRES: step != 0, and no more items than fit in memory.
  static Value Range(int64_t start, int64_t stop, int64_t step);
  // Gives `items` once; whoever reaches their end gets `end` if it is an error.
  static absl::StatusOr<Value> Iterator(std::vector<Value> items,
                                        absl::Status end = absl::OkStatus());
  static absl::StatusOr<Value> Dict(
      std::vector<std::pair<Value, Value>> entries);
  static Value Safe(std::string text);
  // InvalidArgument also for text that is not UTF-8 and integers beyond 64
  // bits.
  static absl::StatusOr<Value> FromJson(const nlohmann::ordered_json& json,
                                        int depth = 0);

  template <typename T>
  const T* As() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return As<Undefined>() != nullptr; }
  bool is_safe() const { return As<SafeText>() != nullptr; }
  bool is_none() const { return As<None>() != nullptr; }
  // Null for values of other kinds.
  const std::string* text() const;
  const ListData* list() const;  // of any ListKind
  // The same for those that have indices.
  const ListData* sequence() const;
  const DictData* dict() const;
  IteratorData* iterator() const;
  NamespaceData* name_space() const;
  const LoopData* loop() const;
  const MethodData* method() const;
  bool is_callable() const;
  // A bool, int or float.
  bool is_number() const;
  // Bools count as 0 and 1. REQUIRES: is_number().
  double number() const;
  // Of a bool or int; false for others.
  bool ToInteger(int64_t* integer) const;

  bool truth() const;
  int depth() const;
  // Python's name of the type: "str", "NoneType".
  std::string_view type_name() const;

 private:
  ValueVariant data_;
};

struct ListData {
  std::vector<Value> items;
  ListKind kind = ListKind::kList;
  int depth = 1;
  int64_t start = 0;  // these three of a kRange only
  int64_t stop = 0;
  int64_t step = 1;

  bool is_list() const { return kind == ListKind::kList; }
  bool is_tuple() const {
    return kind == ListKind::kTuple || kind == ListKind::kGroup;
  }
};

// What filters such as map give: a generator of Python, which is used up by
// whoever goes through it.
struct IteratorData {
  std::vector<Value> items;
  size_t position = 0;
  absl::Status end;
  int depth = 1;
};

struct DictData {
  std::vector<std::pair<Value, Value>> entries;  // in insertion order
  int depth = 1;
  const Value* Find(std::string_view key) const;
};

struct NamespaceData {
  std::map<std::string, Value, std::less<>> attributes;
};

// The variable `loop` inside a for loop.
struct LoopData {
  int64_t index0 = 0;
  int64_t length = 0;
  int64_t depth0 = 0;
  Value previous;
  Value next;
  // Of a recursive loop: what calling it runs again, and where.
  const Statement* recursive = nullptr;
  Scope* scope = nullptr;
  // What loop.changed() was last called with; shared by the iterations.
  std::shared_ptr<std::vector<Value>> last_changed;
};

// `receiver.name`, ready to be called.
struct MethodData {
  Value receiver;
  std::string name;
};

// Like Python's str(): what {{ value }} prints.
absl::StatusOr<std::string> ToText(const Value& value, Budget* budget);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; absent: all in one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// Like Python's json.dumps().
absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style,
                                   Budget* budget);

// InvalidArgument for what Python takes for no key: lists, dicts, and tuples
// with one of those.
absl::Status RequireHashable(const Value& value);

absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget);
// Negative, 0 or positive; InvalidArgument for kinds without an order.
absl::StatusOr<int> Compare(const Value& a, const Value& b, Budget* budget);
// `item in container`.
absl::StatusOr<bool> Contains(const Value& container, const Value& item,
                              Budget* budget);
// What a for loop goes through: items, keys or characters. Uses up iterators.
absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget* budget);
// Only the first of them, or nothing.
absl::StatusOr<std::optional<Value>> NextItem(const Value& value,
                                              Budget* budget);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_VALUE_H_

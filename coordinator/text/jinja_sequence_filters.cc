// Filters of lists, dicts and other iterables.

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/jinja_builtins.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

absl::StatusOr<Value> MakeList(std::vector<Value> items, CallContext* context) {
  RETURN_IF_ERROR(context->budget.Work(items.size() * sizeof(Value)));
  return Value::List(std::move(items));
}

// Generators of Python fail where they are used, not where they are made.
absl::StatusOr<Value> MakeIterator(std::vector<Value> items, absl::Status end,
                                   CallContext* context) {
  if (absl::IsResourceExhausted(end)) return end;
  RETURN_IF_ERROR(context->budget.Work(items.size() * sizeof(Value)));
  return Value::Iterator(std::move(items), std::move(end));
}

absl::StatusOr<Value> FirstOf(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "first").status());
  ASSIGN_OR_RETURN(auto item, NextItem(input, &context->budget));
  if (item.has_value()) return *std::move(item);
  return Value(Undefined{"there is no first item"});
}

absl::Status RequireReversible(const Value& input, std::string_view callee) {
  if (input.iterator() == nullptr) return absl::OkStatus();
  return InvalidArgument("{} needs a list, not a {}", callee,
                         input.type_name());
}

absl::StatusOr<Value> LastOf(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "last").status());
  RETURN_IF_ERROR(RequireReversible(input, "last"));
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  if (items.empty()) return Value(Undefined{"there is no last item"});
  return items.back();
}

absl::StatusOr<Value> ToList(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "list").status());
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  return MakeList(std::move(items), context);
}

absl::StatusOr<Value> Reverse(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "reverse").status());
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  std::reverse(items.begin(), items.end());
  if (input.iterator() != nullptr) return MakeList(std::move(items), context);
  if (input.text() == nullptr) {
    return MakeIterator(std::move(items), absl::OkStatus(), context);
  }
  std::string text;
  for (const Value& item : items) text += *item.text();
  return Value(std::move(text));
}

absl::StatusOr<Value> Items(const Value& input, const CallArguments& arguments,
                            CallContext* context) {
  RETURN_IF_ERROR(BindArguments(arguments, {}, "items").status());
  std::vector<Value> pairs;
  if (input.dict() == nullptr) {
    const absl::Status end =
        input.is_undefined()
            ? absl::OkStatus()
            : InvalidArgument("items needs a dict, not {}", input.type_name());
    return MakeIterator({}, end, context);
  }
  for (const auto& [key, value] : input.dict()->entries) {
    ASSIGN_OR_RETURN(Value pair, Value::List({key, value}, ListKind::kTuple));
    pairs.push_back(std::move(pair));
  }
  return MakeIterator(std::move(pairs), absl::OkStatus(), context);
}

// --- Of each item ------------------------------------------------------------

absl::StatusOr<Value> Map(const Value& input, const CallArguments& arguments,
                          CallContext* context) {
  if (!input.truth()) return MakeIterator({}, absl::OkStatus(), context);
  std::vector<Value> mapped;
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
    if (arguments.positional.empty()) {
      ASSIGN_OR_RETURN(
          const auto bound,
          BindArguments(arguments, {"attribute", "default"}, "map"));
      if (!bound[0].has_value()) {
        return InvalidArgument(
            "map needs the name of a filter or an attribute");
      }
      for (const Value& item : items) {
        ASSIGN_OR_RETURN(Value value, GetPath(item, *bound[0], &context->budget,
                                              bound[1].value_or(Value())));
        mapped.push_back(std::move(value));
      }
      return absl::OkStatus();
    }
    const std::string* name = arguments.positional[0].text();
    if (name == nullptr) {
      return InvalidArgument("map needs the name of a filter");
    }
    CallArguments rest = arguments;
    rest.positional.erase(rest.positional.begin());
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(Value value, ApplyFilter(*name, item, rest, context));
      mapped.push_back(std::move(value));
    }
    return absl::OkStatus();
  };
  absl::Status end = run();
  return MakeIterator(std::move(mapped), std::move(end), context);
}

// Which items select and its relatives keep.
struct Selection {
  std::optional<Value> attribute;
  std::string test;  // empty: the item's truth
  CallArguments arguments;
};

absl::StatusOr<Selection> ParseSelection(const CallArguments& arguments,
                                         bool by_attribute) {
  Selection selection;
  selection.arguments = arguments;
  auto& positional = selection.arguments.positional;
  if (by_attribute) {
    if (positional.empty()) {
      return InvalidArgument("selectattr and rejectattr need an attribute");
    }
    selection.attribute = positional.front();
    positional.erase(positional.begin());
  }
  if (positional.empty()) return selection;
  if (positional.front().text() == nullptr) {
    return InvalidArgument("the name of a test must be a str");
  }
  selection.test = *positional.front().text();
  positional.erase(positional.begin());
  return selection;
}

absl::StatusOr<bool> Holds(const Selection& selection, const Value& item,
                           CallContext* context) {
  RETURN_IF_ERROR(context->budget.Step());
  Value judged = item;
  if (selection.attribute.has_value()) {
    ASSIGN_OR_RETURN(judged,
                     GetPath(item, *selection.attribute, &context->budget));
  }
  if (selection.test.empty()) return judged.truth();
  return ApplyTest(selection.test, judged, selection.arguments, context);
}

// select, reject, selectattr and rejectattr: keeps the items for which a test
// of the item, or of one of its attributes, gives `keep`.
template <bool keep, bool by_attribute>
absl::StatusOr<Value> Select(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  if (!input.truth()) return MakeIterator({}, absl::OkStatus(), context);
  std::vector<Value> kept;
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Selection selection,
                     ParseSelection(arguments, by_attribute));
    ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(const bool holds, Holds(selection, item, context));
      if (holds == keep) kept.push_back(item);
    }
    return absl::OkStatus();
  };
  absl::Status end = run();
  return MakeIterator(std::move(kept), std::move(end), context);
}

// --- By a key ----------------------------------------------------------------

// What sort, unique, min, max and groupby compare of an item: the item or an
// attribute of it, with text in lower case unless case counts.
struct Key {
  std::optional<Value> attribute;
  bool counts_case = false;
  Value otherwise;  // for an attribute that is missing; None: nothing
};

Key KeyOf(const std::optional<Value>& attribute,
          const std::optional<Value>& counts_case) {
  Key key;
  if (attribute.has_value() && !attribute->is_none()) key.attribute = attribute;
  key.counts_case = counts_case.has_value() && counts_case->truth();
  return key;
}

absl::StatusOr<Value> Evaluate(const Key& key, const Value& item,
                               Budget* budget) {
  Value value = item;
  if (key.attribute.has_value()) {
    ASSIGN_OR_RETURN(value,
                     GetPath(item, *key.attribute, budget, key.otherwise));
  }
  if (value.text() == nullptr || key.counts_case) return value;
  RETURN_IF_ERROR(budget->Work(value.text()->size()));
  return Value(ToLower(*value.text()));
}

struct KeyedItem {
  Value key;
  Value item;
};

absl::StatusOr<std::vector<KeyedItem>> EvaluateAll(const Key& key,
                                                   std::vector<Value> items,
                                                   Budget* budget) {
  std::vector<KeyedItem> keyed;
  for (Value& item : items) {
    ASSIGN_OR_RETURN(Value value, Evaluate(key, item, budget));
    keyed.push_back({std::move(value), std::move(item)});
  }
  return keyed;
}

// Stable, as Python sorts; equal items keep their order in reverse, too.
absl::Status SortByKey(bool reverse, Budget* budget,
                       std::vector<KeyedItem>* items) {
  absl::Status failure;
  std::stable_sort(items->begin(), items->end(),
                   [&](const KeyedItem& a, const KeyedItem& b) {
                     failure.Update(RequireDefined(a.key));
                     failure.Update(RequireDefined(b.key));
                     const absl::StatusOr<int> order =
                         reverse ? Compare(b.key, a.key, budget)
                                 : Compare(a.key, b.key, budget);
                     failure.Update(order.status());
                     return failure.ok() && *order < 0;
                   });
  return failure;
}

// The keys of "a,b.c": one list for each item.
absl::StatusOr<std::vector<KeyedItem>> EvaluateSeveral(const Key& key,
                                                       std::vector<Value> items,
                                                       Budget* budget) {
  ASSIGN_OR_RETURN(const auto attributes,
                   SplitText(*key.attribute->text(), ",", -1, budget));
  std::vector<KeyedItem> keyed;
  for (Value& item : items) {
    std::vector<Value> values;
    for (const std::string& attribute : attributes) {
      Key one = key;
      one.attribute = Value(attribute);
      ASSIGN_OR_RETURN(Value value, Evaluate(one, item, budget));
      values.push_back(std::move(value));
    }
    ASSIGN_OR_RETURN(Value list, Value::List(std::move(values)));
    keyed.push_back({std::move(list), std::move(item)});
  }
  return keyed;
}

absl::StatusOr<Value> Sort(const Value& input, const CallArguments& arguments,
                           CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"reverse", "case_sensitive", "attribute"},
                    "sort"));
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  const Key key = KeyOf(bound[2], bound[1]);
  const bool has_several =
      key.attribute.has_value() && key.attribute->text() != nullptr;
  ASSIGN_OR_RETURN(
      auto keyed, has_several
                      ? EvaluateSeveral(key, std::move(items), &context->budget)
                      : EvaluateAll(key, std::move(items), &context->budget));
  const bool reverse = bound[0].has_value() && bound[0]->truth();
  RETURN_IF_ERROR(SortByKey(reverse, &context->budget, &keyed));
  std::vector<Value> sorted;
  for (KeyedItem& item : keyed) sorted.push_back(std::move(item.item));
  return MakeList(std::move(sorted), context);
}

absl::StatusOr<Value> DictSort(const Value& input,
                               const CallArguments& arguments,
                               CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"case_sensitive", "by", "reverse"},
                                 "dictsort"));
  RETURN_IF_ERROR(RequireDefined(input));
  if (input.dict() == nullptr) {
    return InvalidArgument("dictsort needs a dict, not {}", input.type_name());
  }
  const std::string* by = bound[1].has_value() ? bound[1]->text() : nullptr;
  if (bound[1].has_value() &&
      (by == nullptr || (*by != "key" && *by != "value"))) {
    return InvalidArgument("dictsort goes by \"key\" or \"value\"");
  }
  const Key key = KeyOf(std::nullopt, bound[0]);
  std::vector<KeyedItem> keyed;
  for (const auto& [name, value] : input.dict()->entries) {
    const bool by_value = by != nullptr && *by == "value";
    ASSIGN_OR_RETURN(Value compared,
                     Evaluate(key, by_value ? value : name, &context->budget));
    ASSIGN_OR_RETURN(Value pair, Value::List({name, value}, ListKind::kTuple));
    keyed.push_back({std::move(compared), std::move(pair)});
  }
  const bool reverse = bound[2].has_value() && bound[2]->truth();
  RETURN_IF_ERROR(SortByKey(reverse, &context->budget, &keyed));
  std::vector<Value> sorted;
  for (KeyedItem& item : keyed) sorted.push_back(std::move(item.item));
  return MakeList(std::move(sorted), context);
}

absl::StatusOr<Value> GroupBy(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"attribute", "default", "case_sensitive"},
                    "groupby"));
  if (!bound[0].has_value()) {
    return InvalidArgument("groupby needs an attribute");
  }
  Key key = KeyOf(bound[0], bound[2]);
  key.otherwise = bound[1].value_or(Value());
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  ASSIGN_OR_RETURN(auto keyed,
                   EvaluateAll(key, std::move(items), &context->budget));
  RETURN_IF_ERROR(SortByKey(/*reverse=*/false, &context->budget, &keyed));
  Key shown = key;  // each group is named as its first item is
  shown.counts_case = true;
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    size_t end = begin;
    for (; end < keyed.size(); ++end) {
      ASSIGN_OR_RETURN(const bool equal, Equal(keyed[begin].key, keyed[end].key,
                                               &context->budget));
      if (!equal) break;
      members.push_back(keyed[end].item);
    }
    ASSIGN_OR_RETURN(Value name,
                     Evaluate(shown, members.front(), &context->budget));
    ASSIGN_OR_RETURN(Value list, MakeList(std::move(members), context));
    ASSIGN_OR_RETURN(
        Value group,
        Value::List({std::move(name), std::move(list)}, ListKind::kGroup));
    groups.push_back(std::move(group));
    begin = std::max(end, begin + 1);  // a NaN equals not even itself
  }
  return MakeList(std::move(groups), context);
}

absl::StatusOr<Value> Unique(const Value& input, const CallArguments& arguments,
                             CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"case_sensitive", "attribute"}, "unique"));
  std::vector<Value> kept;
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
    ASSIGN_OR_RETURN(auto keyed,
                     EvaluateAll(KeyOf(bound[1], bound[0]), std::move(items),
                                 &context->budget));
    std::vector<Value> seen;
    for (KeyedItem& item : keyed) {
      RETURN_IF_ERROR(RequireHashable(item.key));
      bool is_new = true;
      for (const Value& known : seen) {
        ASSIGN_OR_RETURN(const bool equal,
                         Equal(known, item.key, &context->budget));
        if (equal) is_new = false;
        if (equal) break;
      }
      if (!is_new) continue;
      seen.push_back(std::move(item.key));
      kept.push_back(std::move(item.item));
    }
    return absl::OkStatus();
  };
  absl::Status end = run();
  return MakeIterator(std::move(kept), std::move(end), context);
}

template <int sign>
absl::StatusOr<Value> Extreme(const Value& input,
                              const CallArguments& arguments,
                              CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"case_sensitive", "attribute"}, "min and max"));
  ASSIGN_OR_RETURN(auto items, Iterate(input, &context->budget));
  if (items.empty()) return Value(Undefined{"min or max of no items"});
  ASSIGN_OR_RETURN(auto keyed, EvaluateAll(KeyOf(bound[1], bound[0]),
                                           std::move(items), &context->budget));
  const KeyedItem* best = &keyed.front();
  for (size_t i = 1; i < keyed.size(); ++i) {
    RETURN_IF_ERROR(RequireDefined(best->key));
    RETURN_IF_ERROR(RequireDefined(keyed[i].key));
    ASSIGN_OR_RETURN(const int order,
                     Compare(keyed[i].key, best->key, &context->budget));
    if (order * sign > 0) best = &keyed[i];
  }
  return best->item;
}

absl::StatusOr<Value> Sum(const Value& input, const CallArguments& arguments,
                          CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"attribute", "start"}, "sum"));
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  Value sum = bound[1].value_or(Value(int64_t{0}));
  if (sum.text() != nullptr) {
    return InvalidArgument("sum adds no texts; use join");
  }
  for (Value item : items) {
    if (bound[0].has_value() && !bound[0]->is_none()) {
      ASSIGN_OR_RETURN(item, GetPath(item, *bound[0], &context->budget));
    }
    ASSIGN_OR_RETURN(sum, Arithmetic("+", sum, item, &context->budget));
  }
  return sum;
}

// --- In parts ----------------------------------------------------------------

absl::StatusOr<int64_t> PartCount(const std::optional<Value>& value,
                                  std::string_view what) {
  if (!value.has_value()) return InvalidArgument("{} is missing", what);
  ASSIGN_OR_RETURN(const int64_t count, IntegerOr(value, 0, what));
  if (count >= 1 && count <= kMaxTemplateRange) return count;
  return InvalidArgument("{} must be from 1 to {}, not {}", what,
                         kMaxTemplateRange, count);
}

// Lists of `linecount` items each; the last is filled up if there is something
// to fill it with.
absl::StatusOr<Value> Batch(const Value& input, const CallArguments& arguments,
                            CallContext* context) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, {"linecount", "fill_with"}, "batch"));
  ASSIGN_OR_RETURN(const int64_t count, PartCount(bound[0], "linecount"));
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  std::vector<Value> batches;
  for (size_t begin = 0; begin < items.size();) {
    const size_t end =
        std::min(items.size(), begin + static_cast<size_t>(count));
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(begin),
                            items.begin() + static_cast<std::ptrdiff_t>(end));
    if (bound[1].has_value() && !bound[1]->is_none()) {
      part.resize(static_cast<size_t>(count), *bound[1]);
    }
    ASSIGN_OR_RETURN(Value list, MakeList(std::move(part), context));
    batches.push_back(std::move(list));
    begin = end;
  }
  return MakeIterator(std::move(batches), absl::OkStatus(), context);
}

// As many lists as asked for, of which the first ones are longer by one.
absl::StatusOr<Value> Slice(const Value& input, const CallArguments& arguments,
                            CallContext* context) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArguments(arguments, {"slices", "fill_with"}, "slice"));
  ASSIGN_OR_RETURN(const int64_t num_slices, PartCount(bound[0], "slices"));
  ASSIGN_OR_RETURN(const auto items, Iterate(input, &context->budget));
  const int64_t size = static_cast<int64_t>(items.size());
  const int64_t num_longer = size % num_slices;
  std::vector<Value> slices;
  auto begin = items.begin();
  for (int64_t i = 0; i < num_slices; ++i) {
    const auto end = begin + size / num_slices + (i < num_longer ? 1 : 0);
    std::vector<Value> part(begin, end);
    if (bound[1].has_value() && !bound[1]->is_none() && i >= num_longer) {
      part.push_back(*bound[1]);
    }
    ASSIGN_OR_RETURN(Value list, MakeList(std::move(part), context));
    slices.push_back(std::move(list));
    begin = end;
  }
  return MakeIterator(std::move(slices), absl::OkStatus(), context);
}

}  // namespace

absl::StatusOr<Value> GetPath(const Value& value, const Value& path,
                              Budget* budget, const Value& otherwise) {
  const auto or_default = [&otherwise](Value found) {
    return found.is_undefined() && !otherwise.is_none() ? otherwise : found;
  };
  if (path.text() == nullptr) {
    ASSIGN_OR_RETURN(Value found, GetItem(value, path, budget));
    return or_default(std::move(found));
  }
  Value result = value;
  RETURN_IF_ERROR(budget->Work(path.text()->size()));
  ASSIGN_OR_RETURN(const auto parts, SplitText(*path.text(), ".", -1, budget));
  for (const std::string& part : parts) {
    int64_t index = 0;
    const auto [end, error] =
        std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index =
        error == std::errc() && end == part.data() + part.size() && index >= 0;
    ASSIGN_OR_RETURN(
        Value found,
        GetItem(result, is_index ? Value(index) : Value(part), budget));
    result = or_default(std::move(found));
  }
  return result;
}

FilterFunction FindSequenceFilter(std::string_view name) {
  static const std::map<std::string_view, FilterFunction> kFilters = {
      {"batch", Batch},
      {"dictsort", DictSort},
      {"first", FirstOf},
      {"groupby", GroupBy},
      {"items", Items},
      {"last", LastOf},
      {"list", ToList},
      {"map", Map},
      {"max", Extreme<1>},
      {"min", Extreme<-1>},
      {"reject", Select<false, false>},
      {"rejectattr", Select<false, true>},
      {"reverse", Reverse},
      {"select", Select<true, false>},
      {"selectattr", Select<true, true>},
      {"slice", Slice},
      {"sort", Sort},
      {"sum", Sum},
      {"unique", Unique},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace witan::jinja

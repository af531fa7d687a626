#include "model/json_fields.h"

#include <fmt/format.h>

#include <utility>

#include "base/status.h"
#include "model/json_object.h"

namespace witan {

using Json = nlohmann::json;

void JsonFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

const Json* JsonFields::Find(std::string_view name) const {
  const auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<int64_t> JsonFields::OptionalInteger(std::string_view name,
                                                   int64_t min, int64_t max) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  // Unsigned values above 2^63 - 1 would wrap in get<int64_t>().
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() ||
                     value->get<uint64_t>() <= static_cast<uint64_t>(max)) &&
                    value->get<int64_t>() >= min &&
                    value->get<int64_t>() <= max;
  if (!fits) {
    Refuse(name, *value, fmt::format("an integer from {} to {}", min, max));
    return std::nullopt;
  }
  return value->get<int64_t>();
}

int64_t JsonFields::Integer(std::string_view name, int64_t min, int64_t max) {
  if (!Has(name)) {
    Absent(name, fmt::format("an integer from {} to {}", min, max));
    return min;
  }
  return OptionalInteger(name, min, max).value_or(min);
}

std::optional<double> JsonFields::OptionalNumber(std::string_view name,
                                                 double min, double max,
                                                 bool above_min) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) {
    const double number = value->get<double>();
    if ((above_min ? number > min : number >= min) && number <= max) {
      return number;
    }
  }
  Refuse(name, *value, NumberRange(min, max, above_min));
  return std::nullopt;
}

double JsonFields::Number(std::string_view name, double min, double max,
                          bool above_min) {
  if (!Has(name)) {
    Absent(name, NumberRange(min, max, above_min));
    return max;
  }
  return OptionalNumber(name, min, max, above_min).value_or(max);
}

bool JsonFields::Boolean(std::string_view name, bool default_value) {
  const Json* value = Find(name);
  if (value == nullptr) return default_value;
  if (value->is_boolean()) return value->get<bool>();
  Refuse(name, *value, "true or false");
  return default_value;
}

std::string JsonFields::OptionalString(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  Refuse(name, *value, "a string");
  return "";
}

std::vector<double> JsonFields::PositiveNumbers(std::string_view name,
                                                int64_t size, double min,
                                                double max) {
  const std::string allowed =
      fmt::format("a list of {} numbers from {} to {}", size, min, max);
  const Json* value = Find(name);
  if (value == nullptr) {
    Absent(name, allowed);
    return {};
  }
  if (!value->is_array() || static_cast<int64_t>(value->size()) != size) {
    Refuse(name, *value, allowed);
    return {};
  }
  std::vector<double> numbers;
  for (const Json& element : *value) {
    const double number = element.is_number() ? element.get<double>() : 0;
    if (!(number >= min && number <= max)) {
      Refuse(name, element, allowed);
      return {};
    }
    numbers.push_back(number);
  }
  return numbers;
}

void JsonFields::Absent(std::string_view name, std::string_view allowed) {
  Fail(InvalidArgument(
      "{}: {} is absent, allowed is {}; add the field as the model's author "
      "published it",
      file_, name, allowed));
}

void JsonFields::Refuse(std::string_view name, const Json& value,
                        std::string_view allowed) {
  Fail(InvalidArgument("{}: {} is {}, allowed is {}; correct the field", file_,
                       name, DescribeJson(value), allowed));
}

std::string JsonFields::NumberRange(double min, double max, bool above_min) {
  return fmt::format("a number {} {} and at most {}",
                     above_min ? "above" : "of at least", min, max);
}

}  // namespace witan

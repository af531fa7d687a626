#ifndef WITAN_MODEL_JSON_FIELDS_H_
#define WITAN_MODEL_JSON_FIELDS_H_

#include <absl/status/status.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// Reads fields of one JSON object. The first error is kept and everything
// after it returns a default, so that callers ask for all fields and test
// status() once. A field that is null counts as absent. Messages begin with
// `file` and name the field, its value and what is allowed.
class JsonFields {
 public:
  // Both outlive the reader.
  JsonFields(std::string_view file, const nlohmann::json& object)
      : file_(file), object_(object) {}

  const absl::Status& status() const { return status_; }
  // Keeps `status` if it is the first error.
  void Fail(absl::Status status);

  // Null when absent.
  const nlohmann::json* Find(std::string_view name) const;
  bool Has(std::string_view name) const { return Find(name) != nullptr; }

  std::optional<int64_t> OptionalInteger(std::string_view name, int64_t min,
                                         int64_t max);
  int64_t Integer(std::string_view name, int64_t min, int64_t max);
  // A number in [min, max], or in (min, max] with `above_min`.
  std::optional<double> OptionalNumber(std::string_view name, double min,
                                       double max, bool above_min);
  double Number(std::string_view name, double min, double max, bool above_min);
  bool Boolean(std::string_view name, bool default_value);
  std::string OptionalString(std::string_view name);  // empty when absent
  // A list of exactly `size` numbers in [min, max], min > 0.
  std::vector<double> PositiveNumbers(std::string_view name, int64_t size,
                                      double min, double max);

  void Absent(std::string_view name, std::string_view allowed);
  void Refuse(std::string_view name, const nlohmann::json& value,
              std::string_view allowed);

  static std::string NumberRange(double min, double max, bool above_min);

 private:
  const std::string_view file_;
  const nlohmann::json& object_;
  absl::Status status_;
};

}  // namespace witan

#endif  // WITAN_MODEL_JSON_FIELDS_H_

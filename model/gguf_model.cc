#include "model/gguf_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <system_error>
#include <type_traits>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "model/json_object.h"

namespace witan {
namespace {

constexpr std::string_view kExtension = ".gguf";

// "NAME-00002-of-00003.gguf": NAME and 3.
struct SplitName {
  std::string stem;
  int64_t num_parts = 0;
};

std::optional<int64_t> FiveDigits(std::string_view text) {
  int64_t value = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return std::nullopt;
    value = value * 10 + (digit - '0');
  }
  return text.size() == 5 ? std::optional(value) : std::nullopt;
}

std::optional<SplitName> ParseSplitName(std::string_view path) {
  constexpr std::string_view kPattern = "-00001-of-00001.gguf";
  if (path.size() <= kPattern.size()) return std::nullopt;
  const std::string_view end = path.substr(path.size() - kPattern.size());
  const auto number = FiveDigits(end.substr(1, 5));
  const auto count = FiveDigits(end.substr(10, 5));
  if (end[0] != '-' || end.substr(6, 4) != "-of-" || !number || !count ||
      *number < 1 || *number > *count) {
    return std::nullopt;
  }
  return SplitName{std::string(path.substr(0, path.size() - kPattern.size())),
                   *count};
}

absl::StatusOr<std::vector<std::string>> PartsOf(const std::string& path) {
  const auto split = ParseSplitName(path);
  if (!split) return std::vector<std::string>{path};
  if (split->num_parts > kMaxModelShards) {
    return InvalidArgument("{}: is of {} parts, at most {} are allowed", path,
                           split->num_parts, kMaxModelShards);
  }
  std::vector<std::string> paths;
  for (int64_t part = 1; part <= split->num_parts; ++part) {
    paths.push_back(fmt::format("{}-{:05}-of-{:05}{}", split->stem, part,
                                split->num_parts, kExtension));
    std::error_code error;
    if (!std::filesystem::exists(paths.back(), error)) {
      return InvalidArgument(
          "{}: is not there, and the model is split into {} files; download "
          "the missing one",
          paths.back(), split->num_parts);
    }
  }
  return paths;
}

// The first file of each model in the directory, ascending.
std::vector<std::string> ModelsIn(const std::string& directory) {
  std::set<std::string> models;
  std::error_code error;
  std::filesystem::directory_iterator entry(directory, error);
  for (; !error && entry != std::filesystem::directory_iterator();
       entry.increment(error)) {
    const std::string path = entry->path().string();
    if (!path.ends_with(kExtension)) continue;
    const auto split = ParseSplitName(path);
    models.insert(split ? fmt::format("{}-{:05}-of-{:05}{}", split->stem, 1,
                                      split->num_parts, kExtension)
                        : path);
  }
  return {models.begin(), models.end()};
}

// The one value that a list repeats.
template <typename T>
std::optional<T> Repeated(const std::vector<T>& list) {
  if (list.empty() ||
      std::adjacent_find(list.begin(), list.end(), std::not_equal_to<T>()) !=
          list.end()) {
    return std::nullopt;
  }
  return list.front();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindGgufFiles(
    const std::string& model) {
  std::error_code error;
  if (std::filesystem::is_directory(model, error)) {
    if (std::filesystem::exists(model + "/config.json", error)) {
      return std::vector<std::string>();
    }
    const std::vector<std::string> models = ModelsIn(model);
    if (models.empty()) return std::vector<std::string>();
    if (models.size() > 1) {
      const size_t num_listed = std::min(models.size(), kMaxListedNames);
      return InvalidArgument(
          "{}: has {} models in the GGUF format, among them {}; name one of "
          "the files instead of the directory",
          model, models.size(),
          fmt::join(models.begin(), models.begin() + num_listed, ", "));
    }
    return PartsOf(models.front());
  }
  if (!model.ends_with(kExtension)) return std::vector<std::string>();
  return PartsOf(model);
}

std::string NameOfModel(const std::string& model) {
  const std::filesystem::path path =
      std::filesystem::path(model).lexically_normal();
  const std::string name = path.has_filename()
                               ? path.filename().string()
                               : path.parent_path().filename().string();
  if (!name.ends_with(kExtension)) return name;
  const auto split = ParseSplitName(name);
  return split ? split->stem : name.substr(0, name.size() - kExtension.size());
}

void GgufFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void GgufFields::Absent(std::string_view key, std::string_view allowed) {
  Fail(InvalidArgument("metadata: {} is absent; it must be {}", key, allowed));
}

void GgufFields::Refuse(std::string_view key, const GgufValue& value,
                        std::string_view allowed) {
  Fail(InvalidArgument("metadata: {} is {}; allowed is {}", key,
                       DescribeGguf(value), allowed));
}

std::optional<int64_t> GgufFields::Integer(std::string_view key) {
  const GgufValue* value = gguf_.Find(key);
  if (value == nullptr || !status_.ok()) return std::nullopt;
  const std::optional<int64_t> integer = std::visit(
      [](const auto& held) -> std::optional<int64_t> {
        using T = std::decay_t<decltype(held)>;
        constexpr auto narrow = [](auto wide) -> std::optional<int64_t> {
          if (!std::in_range<int64_t>(wide)) return std::nullopt;
          return static_cast<int64_t>(wide);
        };
        if constexpr (std::is_same_v<T, int64_t> ||
                      std::is_same_v<T, uint64_t>) {
          return narrow(held);
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                             std::is_same_v<T, std::vector<uint64_t>>) {
          const auto repeated = Repeated(held);
          return repeated ? narrow(*repeated) : std::nullopt;
        } else {
          return std::nullopt;
        }
      },
      *value);
  if (!integer) {
    Refuse(key, *value, "an integer, the same for every layer");
  }
  return integer;
}

std::optional<double> GgufFields::Number(std::string_view key) {
  const GgufValue* value = gguf_.Find(key);
  if (value == nullptr || !status_.ok()) return std::nullopt;
  const auto* number = std::get_if<double>(value);
  if (number != nullptr && std::isfinite(*number)) return *number;
  Refuse(key, *value, "a finite number of a type with a point");
  return std::nullopt;
}

std::optional<bool> GgufFields::Boolean(std::string_view key) {
  const GgufValue* value = gguf_.Find(key);
  if (value == nullptr || !status_.ok()) return std::nullopt;
  if (const auto* boolean = std::get_if<bool>(value)) return *boolean;
  Refuse(key, *value, "a boolean");
  return std::nullopt;
}

std::optional<std::string_view> GgufFields::String(std::string_view key) {
  const GgufValue* value = gguf_.Find(key);
  if (value == nullptr || !status_.ok()) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(value);
  if (text != nullptr && IsValidUtf8(*text)) return *text;
  Refuse(key, *value, "a string of UTF-8");
  return std::nullopt;
}

absl::StatusOr<GgufModel> GgufModel::Open(
    const std::vector<std::string>& paths) {
  GgufModel model;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    absl::StatusOr<Gguf> gguf = ParseGguf(file.bytes());
    if (!gguf.ok()) return Annotate(gguf.status(), path);
    model.files_.push_back(std::move(file));
    model.parts_.push_back(*std::move(gguf));
  }
  RETURN_IF_ERROR(model.CheckParts());
  return model;
}

GgufModel GgufModel::OfMemory(Gguf gguf) {
  GgufModel model;
  model.parts_.push_back(std::move(gguf));
  return model;
}

absl::Status GgufModel::CheckParts() const {
  std::set<std::string_view> names;
  for (size_t i = 0; i < parts_.size(); ++i) {
    GgufFields fields(parts_[i]);
    const int64_t count = fields.Integer("split.count").value_or(1);
    const int64_t number = fields.Integer("split.no").value_or(0);
    if (!fields.status().ok()) {
      return Annotate(fields.status(), files_[i].path());
    }
    // Files that were never split may say so by a count of 0.
    if (std::max<int64_t>(count, 1) != static_cast<int64_t>(parts_.size()) ||
        number != static_cast<int64_t>(i)) {
      return InvalidArgument(
          "{}: is part {} of {} (split.no from 0, split.count), and its name "
          "says part {} of {}; give the parts the names that they were made "
          "with",
          files_[i].path(), number, count, i, parts_.size());
    }
    for (const GgufTensor& tensor : parts_[i].tensors) {
      if (!names.insert(tensor.name).second) {
        return InvalidArgument(
            "{}: tensor {} is also in an earlier part; a name may occur once",
            files_[i].path(), Quoted(tensor.name));
      }
    }
  }
  return absl::OkStatus();
}

const GgufTensor* GgufModel::FindTensor(std::string_view name) const {
  for (const Gguf& part : parts_) {
    for (const GgufTensor& tensor : part.tensors) {
      if (tensor.name == name) return &tensor;
    }
  }
  return nullptr;
}

}  // namespace witan

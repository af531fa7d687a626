#ifndef WITAN_MODEL_GGUF_MODEL_H_
#define WITAN_MODEL_GGUF_MODEL_H_

// A model in the GGUF format: one file, or the parts -00001-of-0000N.gguf that
// llama.cpp's gguf-split makes of one. It takes the place of a Hugging Face
// directory: gguf_config.h makes the texts of its files of the metadata,
// gguf_tensors.h its tensors.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf.h"
#include "model/mapped_file.h"

namespace witan {

// The files of the model that `model` names: a file whose name ends with .gguf
// (of a split one any part), or a directory without config.json that has
// exactly one such model. Empty when it names neither, and so a Hugging Face
// directory. INVALID_ARGUMENT names the part that is missing, or the models of
// which one has to be chosen.
absl::StatusOr<std::vector<std::string>> FindGgufFiles(
    const std::string& model);

// The name of a model: that of its directory, or of its file without .gguf.
std::string NameOfModel(const std::string& model);

// Reads one key's value at a time. The first error is kept and everything after
// it returns nothing, so that callers test status() once.
class GgufFields {
 public:
  // Outlived by `gguf`.
  explicit GgufFields(const Gguf& gguf) : gguf_(gguf) {}

  const absl::Status& status() const { return status_; }
  void Fail(absl::Status status);
  void Absent(std::string_view key, std::string_view allowed);

  bool Has(std::string_view key) const { return gguf_.Find(key) != nullptr; }
  // A whole number, or a list with the same one for every layer.
  std::optional<int64_t> Integer(std::string_view key);
  std::optional<double> Number(std::string_view key);
  std::optional<bool> Boolean(std::string_view key);
  std::optional<std::string_view> String(std::string_view key);  // UTF-8

 private:
  void Refuse(std::string_view key, const GgufValue& value,
              std::string_view allowed);

  const Gguf& gguf_;
  absl::Status status_;
};

// Owns the mappings of all parts.
class GgufModel {
 public:
  // INVALID_ARGUMENT names the file and what is wrong with it, or how the parts
  // (split.no, split.count) do not belong together.
  static absl::StatusOr<GgufModel> Open(const std::vector<std::string>& paths);

  // Of one file that is in memory, which the caller keeps there.
  static GgufModel OfMemory(Gguf gguf);

  // Of the first part, which has that of the model.
  const Gguf& metadata() const { return parts_.front(); }
  // By part; names are distinct over all.
  const std::vector<Gguf>& parts() const { return parts_; }
  const std::vector<MappedFile>& files() const { return files_; }
  // Null when there is no such tensor.
  const GgufTensor* FindTensor(std::string_view name) const;
  // Moves the mappings out; what was read of them stays valid.
  std::vector<MappedFile> TakeFiles() { return std::move(files_); }

 private:
  GgufModel() = default;
  absl::Status CheckParts() const;

  std::vector<MappedFile> files_;
  std::vector<Gguf> parts_;
};

}  // namespace witan

#endif  // WITAN_MODEL_GGUF_MODEL_H_

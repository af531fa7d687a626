#include "model/checkpoint.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/gguf_model.h"
#include "model/gguf_tensors.h"
#include "model/json_object.h"
#include "model/safetensors_header.h"

namespace witan {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

bool Exists(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0;
}

// The index's weight_map: tensor name -> file name.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(
    const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(path, kMaxSafetensorsHeaderBytes));
  ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(path, text));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object()) {
    return InvalidArgument(
        "{}: weight_map is {}; allowed is an object of tensor names and file "
        "names",
        path, weight_map == index.end() ? "absent" : DescribeJson(*weight_map));
  }
  if (static_cast<int64_t>(weight_map->size()) > kMaxTensors) {
    return InvalidArgument(
        "{}: weight_map names {} tensors, at most {} are "
        "allowed",
        path, weight_map->size(), kMaxTensors);
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [name, file] : weight_map->items()) {
    const auto* text_of_file = file.get_ptr<const std::string*>();
    // A file of another directory is none of this model's business.
    if (text_of_file == nullptr || text_of_file->empty() ||
        text_of_file->find_first_of(std::string_view("/\0", 2)) !=
            std::string::npos) {
      return InvalidArgument(
          "{}: tensor {} is in {}; allowed is the name of a file in the same "
          "directory",
          path, Quoted(name), DescribeJson(file));
    }
    file_of.emplace(name, *text_of_file);
  }
  return file_of;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenFile(
    const std::string& path) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  RETURN_IF_ERROR(checkpoint->AddSafetensors(path));
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& model) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  ASSIGN_OR_RETURN(const auto gguf_files, FindGgufFiles(model));
  if (!gguf_files.empty()) {
    RETURN_IF_ERROR(checkpoint->AddGguf(gguf_files));
    return checkpoint;
  }
  const std::string single_path = model + "/" + kSingleFile;
  const std::string index_path = model + "/" + kIndexFile;
  if (Exists(single_path)) {
    RETURN_IF_ERROR(checkpoint->AddSafetensors(single_path));
  } else if (Exists(index_path)) {
    RETURN_IF_ERROR(checkpoint->AddShards(model, index_path));
  } else {
    return NotFound(
        "{}: neither {} nor {} is there; give a Hugging Face model directory "
        "with safetensors weights, or a .gguf file",
        model, kSingleFile, kIndexFile);
  }
  return checkpoint;
}

const MappedTensor* Checkpoint::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

int Checkpoint::AddFile(MappedFile file) {
  files_.push_back(file.path());
  file_identities_.push_back(file.identity());
  mappings_.push_back(std::move(file));
  return static_cast<int>(files_.size()) - 1;
}

absl::Status Checkpoint::AddTensor(const std::string& name,
                                   MappedTensor tensor) {
  const int file_index = tensor.file_index;
  const auto [it, added] = tensors_.try_emplace(name, std::move(tensor));
  if (!added) {
    return InvalidArgument(
        "{}: tensor {} is also in {}; a name may occur once in a checkpoint",
        files_[file_index], Quoted(name), files_[it->second.file_index]);
  }
  if (static_cast<int64_t>(tensors_.size()) > kMaxTensors) {
    return InvalidArgument("{}: more than {} tensors in the checkpoint",
                           files_[file_index], kMaxTensors);
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const std::span<const std::byte> bytes = file.bytes();
  absl::StatusOr<std::vector<TensorEntry>> entries = ParseSafetensors(bytes);
  if (!entries.ok()) return Annotate(entries.status(), path);
  const int file_index = AddFile(std::move(file));
  for (TensorEntry& entry : *entries) {
    RETURN_IF_ERROR(AddTensor(
        entry.name, {.dtype = entry.dtype,
                     .shape = std::move(entry.shape),
                     .data = entry.data,
                     .file_index = file_index,
                     .file_offset = entry.data.data() - bytes.data()}));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddGguf(const std::vector<std::string>& paths) {
  ASSIGN_OR_RETURN(GgufModel model, GgufModel::Open(paths));
  absl::StatusOr<std::map<std::string, MappedTensor>> tensors =
      TensorsOfGguf(model);
  if (!tensors.ok()) return Annotate(tensors.status(), paths.front());
  for (MappedFile& file : model.TakeFiles()) AddFile(std::move(file));
  tensors_ = *std::move(tensors);
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& directory,
                                   const std::string& index_path) {
  ASSIGN_OR_RETURN(const auto file_of, ReadIndex(index_path));
  std::map<std::string, int> shards;  // file name -> index into files_
  for (const auto& [name, file] : file_of) shards.emplace(file, 0);
  if (static_cast<int64_t>(shards.size()) > kMaxModelShards) {
    return InvalidArgument("{}: names {} files, at most {} are allowed",
                           index_path, shards.size(), kMaxModelShards);
  }
  for (auto& [file, file_index] : shards) {
    const std::string path = directory + "/" + file;
    if (!Exists(path)) {
      return InvalidArgument(
          "{}: the file {}, which the index names, is not there; download the "
          "missing file",
          index_path, path);
    }
    file_index = static_cast<int>(files_.size());
    RETURN_IF_ERROR(AddSafetensors(path));
  }
  for (const auto& [name, file] : file_of) {
    const MappedTensor* tensor = Find(name);
    if (tensor == nullptr) {
      return InvalidArgument(
          "{}: tensor {} should be in {} but is in no file of the index",
          index_path, Quoted(name), file);
    }
    if (tensor->file_index != shards.at(file)) {
      return InvalidArgument("{}: tensor {} should be in {} but is in {}",
                             index_path, Quoted(name), file,
                             files_[tensor->file_index]);
    }
  }
  for (const auto& [name, tensor] : tensors_) {
    if (!file_of.contains(name)) {
      return InvalidArgument("{}: tensor {} of {} is not in the index",
                             index_path, Quoted(name),
                             files_[tensor.file_index]);
    }
  }
  return absl::OkStatus();
}

}  // namespace witan

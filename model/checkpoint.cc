#include "model/checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
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

FileIdentity IdentityOf(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 +
                         info.st_mtim.tv_nsec,
          .size_bytes = info.st_size};
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

absl::StatusOr<FileIdentity> IdentityOfFile(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    return NotFound("{}: {}", path, std::strerror(errno));
  }
  return IdentityOf(info);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenFile(
    const std::string& path) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  RETURN_IF_ERROR(checkpoint->AddFile(path));
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  const std::string single_path = directory + "/" + kSingleFile;
  const std::string index_path = directory + "/" + kIndexFile;
  if (Exists(single_path)) {
    RETURN_IF_ERROR(checkpoint->AddFile(single_path));
  } else if (Exists(index_path)) {
    RETURN_IF_ERROR(checkpoint->AddShards(directory, index_path));
  } else {
    return NotFound(
        "{}: neither {} nor {} is there; give a Hugging Face model directory "
        "with safetensors weights",
        directory, kSingleFile, kIndexFile);
  }
  return checkpoint;
}

Checkpoint::~Checkpoint() {
  for (const Mapping& mapping : mappings_) {
    munmap(mapping.address, mapping.size_bytes);
  }
}

const MappedTensor* Checkpoint::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return InvalidArgument("{}: cannot be opened: {}", path,
                           std::strerror(errno));
  }
  struct stat info = {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const auto size = static_cast<size_t>(info.st_size);
  void* address = MAP_FAILED;
  int map_error = 0;
  if (regular && size > 0) {
    address = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    map_error = errno;
  }
  close(fd);
  if (!regular) return InvalidArgument("{}: not a regular file", path);
  if (size > 0 && address == MAP_FAILED) {
    return InvalidArgument("{}: {} bytes cannot be mapped: {}", path, size,
                           std::strerror(map_error));
  }
  std::span<const std::byte> file;
  if (size > 0) {
    mappings_.push_back({address, size});
    file = {static_cast<const std::byte*>(address), size};
  }
  absl::StatusOr<std::vector<TensorEntry>> entries = ParseSafetensors(file);
  if (!entries.ok()) return Annotate(entries.status(), path);

  const int file_index = static_cast<int>(files_.size());
  files_.push_back(path);
  file_identities_.push_back(IdentityOf(info));
  for (TensorEntry& entry : *entries) {
    const auto [it, added] = tensors_.try_emplace(
        entry.name,
        MappedTensor{entry.dtype, std::move(entry.shape), entry.data,
                     file_index, entry.data.data() - file.data()});
    if (!added) {
      return InvalidArgument(
          "{}: tensor {} is also in {}; a name may occur once in a checkpoint",
          path, Quoted(entry.name), files_[it->second.file_index]);
    }
  }
  if (static_cast<int64_t>(tensors_.size()) > kMaxTensors) {
    return InvalidArgument("{}: more than {} tensors in the checkpoint", path,
                           kMaxTensors);
  }
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
    RETURN_IF_ERROR(AddFile(path));
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

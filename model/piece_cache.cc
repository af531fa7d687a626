#include "model/piece_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/sha256.h"

namespace witan {
namespace {

constexpr std::string_view kFirstLine = "witan piece hashes 1\n";
constexpr size_t kHexBytes = 64;

std::string HashOf(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return hash.Finish();
}

// "HEX KEY" lines between the first line and the hash of everything before it.
std::string Serialize(const CachedHashes& hashes) {
  std::string text(kFirstLine);
  for (const auto& [key, hash] : hashes) {
    text += fmt::format("{} {}\n", hash, key);
  }
  return text + HashOf(text);
}

// Empty for anything that Serialize did not write.
CachedHashes Deserialize(std::string_view text) {
  CachedHashes hashes;
  if (text.size() < kFirstLine.size() + kHexBytes) return hashes;
  const std::string_view body = text.substr(0, text.size() - kHexBytes);
  if (!body.starts_with(kFirstLine) ||
      HashOf(body) != text.substr(body.size())) {
    return hashes;
  }
  std::string_view rest = body.substr(kFirstLine.size());
  while (!rest.empty()) {
    const size_t line_size = rest.find('\n');
    if (line_size == std::string_view::npos || line_size < kHexBytes + 2) {
      return {};
    }
    hashes.emplace(rest.substr(kHexBytes + 1, line_size - kHexBytes - 1),
                   rest.substr(0, kHexBytes));
    rest.remove_prefix(line_size + 1);
  }
  return hashes;
}

bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void ReplaceFile(const std::string& path, std::string_view bytes) {
  const std::string temporary = path + ".new";
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  const bool written = WriteAll(fd, bytes);
  if (close(fd) != 0 || !written ||
      rename(temporary.c_str(), path.c_str()) != 0) {
    unlink(temporary.c_str());
  }
}

}  // namespace

PieceCache::PieceCache(std::string directory)
    : directory_(std::move(directory)) {
  std::error_code ignored;  // shows when nothing can be stored there
  if (enabled()) std::filesystem::create_directories(directory_, ignored);
}

std::string PieceCache::PathOf(const FileIdentity& file) const {
  return fmt::format("{}/pieces-{:x}-{:x}-{:x}-{:x}", directory_, file.device,
                     file.inode, file.modified_ns, file.size_bytes);
}

CachedHashes PieceCache::Load(const FileIdentity& file) const {
  if (!enabled()) return {};
  const auto text = ReadFile(PathOf(file), kMaxPieceCacheFileBytes);
  return text.ok() ? Deserialize(*text) : CachedHashes();
}

void PieceCache::Store(const std::string& path, const FileIdentity& file,
                       const CachedHashes& hashes) const {
  if (!enabled() || hashes.empty()) return;
  const auto now = IdentityOfFile(path);
  const int64_t now_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(
          std::chrono::system_clock::now().time_since_epoch())
          .count();
  if (!now.ok() || *now != file || file.modified_ns > now_ns - kMinFileAgeNs) {
    return;
  }
  const int lock =
      open((directory_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) {
    LogWarning("hashes of weights cannot be kept",
               {{"cache_dir", directory_}, {"reason", std::strerror(errno)}});
    return;
  }
  if (flock(lock, LOCK_EX) == 0) {
    CachedHashes all = Load(file);
    for (const auto& [key, hash] : hashes) all[key] = hash;
    ReplaceFile(PathOf(file), Serialize(all));
  }
  close(lock);  // unlocks
}

}  // namespace witan

#include "worker/comm/shm_region.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "worker/comm/socket.h"

namespace witan {
namespace {

constexpr uint64_t kMagic = 0x314d4853'4e544957;  // "WITNSHM1"
constexpr uint32_t kVersion = 1;
constexpr std::string_view kFilePrefix = "witan-";

constexpr size_t RoundUp(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// The kernel drops this lock when the last descriptor of this open file is
// closed, however its process ends.
struct flock LockOf(int rank, int16_t type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = rank;
  lock.l_len = 1;
  return lock;
}

bool IsLockedByOther(int fd, int rank) {
  struct flock lock = LockOf(rank, F_WRLCK);
  // What cannot be asked is not evidence of a death.
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return true;
  return lock.l_type != F_UNLCK;
}

absl::Status Hold(int fd, int rank, const std::string& path) {
  struct flock lock = LockOf(rank, F_WRLCK);
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
  return FailedPrecondition("rank {} in {} is already held by somebody: {}",
                            rank, path, ErrorText(errno));
}

// Removes files of ours in `directory` whose ranks are all dead.
void RemoveStaleFiles(const std::string& directory) {
  DIR* listing = opendir(directory.c_str());
  if (listing == nullptr) return;
  const time_t now = time(nullptr);
  while (const dirent* entry = readdir(listing)) {
    if (!std::string_view(entry->d_name).starts_with(kFilePrefix)) continue;
    const int fd = openat(dirfd(listing), entry->d_name,
                          O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    struct stat info;
    uint64_t magic = 0;
    // A young file may not be held yet by the one who makes it.
    bool stale = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                 info.st_uid == geteuid() &&
                 now - info.st_mtime >= kStaleRegionSeconds &&
                 pread(fd, &magic, sizeof(magic), 0) == sizeof(magic) &&
                 magic == kMagic;
    for (int rank = 0; stale && rank < kMaxRanks; ++rank) {
      stale = !IsLockedByOther(fd, rank);
    }
    if (stale) unlinkat(dirfd(listing), entry->d_name, 0);
    close(fd);
  }
  closedir(listing);
}

}  // namespace

struct ShmRegion::Layout {
  explicit Layout(const CommunicatorOptions& options) {
    const size_t size = options.size;
    lines = RoundUp(sizeof(ShmHeader), 64);
    chunk_bytes = lines + size * sizeof(RankLine);
    send_buffers =
        RoundUp(chunk_bytes + 2 * size * size * sizeof(uint64_t), size_t{4096});
    send_stride = RoundUp(options.max_send_bytes, 64);
    total = send_buffers + 2 * size * send_stride;
  }

  size_t lines;
  size_t chunk_bytes;
  size_t send_buffers;
  size_t send_stride;
  size_t total;
};

ShmRegion::ShmRegion(const CommunicatorOptions& options, const Layout& layout,
                     std::byte* memory, int fd, std::string path)
    : size_(options.size),
      total_bytes_(layout.total),
      memory_(memory),
      fd_(fd),
      path_(std::move(path)),
      has_name_(!path_.empty()),
      header_(reinterpret_cast<ShmHeader*>(memory)),
      lines_(reinterpret_cast<RankLine*>(memory + layout.lines)),
      chunk_bytes_(reinterpret_cast<uint64_t*>(memory + layout.chunk_bytes)),
      send_buffers_(memory + layout.send_buffers),
      send_stride_(layout.send_stride) {}

ShmRegion::~ShmRegion() {
  Unlink();
  munmap(memory_, total_bytes_);
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::unique_ptr<ShmRegion>> ShmRegion::MakeInProcess(
    const CommunicatorOptions& options) {
  const Layout layout(options);
  void* memory = mmap(nullptr, layout.total, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return ResourceExhausted(
        "no {} bytes of memory for the communication of {} ranks: {}",
        layout.total, options.size, ErrorText(errno));
  }
  return std::unique_ptr<ShmRegion>(new ShmRegion(
      options, layout, static_cast<std::byte*>(memory), -1, std::string()));
}

absl::StatusOr<std::unique_ptr<ShmRegion>> ShmRegion::CreateFile(
    const CommunicatorOptions& options, const Nonce& nonce,
    const std::string& directory) {
  if (!directory.empty()) return CreateIn(options, nonce, directory);
  auto in_memory = CreateIn(options, nonce, "/dev/shm");
  if (in_memory.ok()) return in_memory;
  const char* temporary = std::getenv("TMPDIR");
  auto on_disk =
      CreateIn(options, nonce,
               temporary == nullptr || *temporary == 0 ? "/tmp" : temporary);
  if (on_disk.ok()) return on_disk;
  return absl::Status(on_disk.status().code(),
                      fmt::format("{}; {}", MessageOf(in_memory.status()),
                                  MessageOf(on_disk.status())));
}

absl::StatusOr<std::unique_ptr<ShmRegion>> ShmRegion::CreateIn(
    const CommunicatorOptions& options, const Nonce& nonce,
    const std::string& directory) {
  RemoveStaleFiles(directory);
  const Layout layout(options);
  std::string path = fmt::format("{}/{}{}", directory, kFilePrefix, Hex(nonce));
  const int fd = open(path.c_str(),
                      O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return ResourceExhausted("cannot create {}: {}", path, ErrorText(errno));
  }
  absl::Status status = Hold(fd, options.rank, path);
  // Reserved now: a full file system is an error here, not a SIGBUS later.
  const int error =
      status.ok() ? posix_fallocate(fd, 0, static_cast<off_t>(layout.total))
                  : 0;
  if (error != 0) {
    status = ResourceExhausted(
        "no {} bytes for the communication of {} ranks in {}: {}", layout.total,
        options.size, directory, ErrorText(error));
  }
  void* memory = MAP_FAILED;
  if (status.ok()) {
    memory =
        mmap(nullptr, layout.total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
      status = ResourceExhausted("cannot map {} bytes of {}: {}", layout.total,
                                 path, ErrorText(errno));
    }
  }
  if (!status.ok()) {
    unlink(path.c_str());
    close(fd);
    return status;
  }
  std::unique_ptr<ShmRegion> region(new ShmRegion(
      options, layout, static_cast<std::byte*>(memory), fd, std::move(path)));
  ShmHeader& header = *region->header_;
  header.magic = kMagic;
  header.version = kVersion;
  header.size = static_cast<uint32_t>(options.size);
  header.epoch = options.epoch;
  header.max_send_bytes = options.max_send_bytes;
  header.nonce = nonce;
  return region;
}

absl::StatusOr<std::unique_ptr<ShmRegion>> ShmRegion::OpenFile(
    const CommunicatorOptions& options, const Nonce& nonce,
    const std::string& path) {
  const Layout layout(options);
  const int fd =
      open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    return Unavailable("rank 0's shared memory {} cannot be opened: {}", path,
                       ErrorText(errno));
  }
  struct stat info;
  // Read, not mapped: the file may be anything and of any length.
  alignas(ShmHeader) std::byte bytes[offsetof(ShmHeader, abort_state)] = {};
  const bool read =
      fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
      pread(fd, bytes, sizeof(bytes), 0) == static_cast<ssize_t>(sizeof(bytes));
  const auto& header = *reinterpret_cast<const ShmHeader*>(bytes);
  absl::Status status;
  if (!read || header.magic != kMagic || header.version != kVersion ||
      header.nonce != nonce || header.epoch != options.epoch ||
      header.size != static_cast<uint32_t>(options.size) ||
      header.max_send_bytes != options.max_send_bytes ||
      info.st_size != static_cast<off_t>(layout.total)) {
    status = FailedPrecondition(
        "{} is not the shared memory of this group (epoch {}, {} ranks, send "
        "buffers of {} bytes)",
        path, options.epoch, options.size, options.max_send_bytes);
  }
  if (status.ok()) status = Hold(fd, options.rank, path);
  void* memory = MAP_FAILED;
  if (status.ok()) {
    memory =
        mmap(nullptr, layout.total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
      status = ResourceExhausted("cannot map {} bytes of {}: {}", layout.total,
                                 path, ErrorText(errno));
    }
  }
  if (!status.ok()) {
    close(fd);
    return status;
  }
  return std::unique_ptr<ShmRegion>(new ShmRegion(
      options, layout, static_cast<std::byte*>(memory), fd, path));
}

void ShmRegion::Unlink() {
  if (has_name_.exchange(false)) unlink(path_.c_str());
}

bool ShmRegion::Post(int rank) {
  RankLine& line = lines_[rank];
  // Sequentially consistent on both sides: either the sleeper is seen here, or
  // it sees the new word before it sleeps.
  const uint32_t before =
      line.word.fetch_add(kOneCall, std::memory_order_seq_cst);
  if (line.num_sleepers.load(std::memory_order_seq_cst) > 0) Wake(rank);
  return (before & kAborted) == 0;
}

bool ShmRegion::Sleep(int rank, uint32_t word, int64_t max_ms) {
  RankLine& line = lines_[rank];
  line.num_sleepers.fetch_add(1, std::memory_order_seq_cst);
  const timespec timeout = {.tv_sec = max_ms / 1000,
                            .tv_nsec = max_ms % 1000 * 1'000'000};
  const bool is_over = syscall(SYS_futex, &line.word, FUTEX_WAIT, word,
                               &timeout, nullptr, 0) != 0 &&
                       errno == ETIMEDOUT;
  line.num_sleepers.fetch_sub(1, std::memory_order_seq_cst);
  return !is_over;
}

void ShmRegion::Wake(int rank) {
  syscall(SYS_futex, &lines_[rank].word, FUTEX_WAKE, INT_MAX, nullptr, nullptr,
          0);
}

void ShmRegion::Abort(const absl::Status& status) {
  uint32_t alive = 0;
  if (!header_->abort_state.compare_exchange_strong(alive, 1)) return;
  const std::string message = CutReason(MessageOf(status));
  header_->abort_code = static_cast<int32_t>(status.code());
  header_->abort_message_bytes = static_cast<uint32_t>(message.size());
  std::memcpy(header_->abort_message, message.data(), message.size());
  header_->abort_state.store(2);
  for (int rank = 0; rank < size_; ++rank) {
    lines_[rank].word.fetch_or(kAborted, std::memory_order_seq_cst);
    Wake(rank);
  }
}

absl::Status ShmRegion::AbortStatus() const {
  if (header_->abort_state.load() != 2) {
    return Unavailable("the group was aborted without a reason");
  }
  const size_t bytes =
      std::min<size_t>(header_->abort_message_bytes, kMaxAbortReasonBytes);
  const auto code = static_cast<absl::StatusCode>(header_->abort_code);
  return absl::Status(
      code == absl::StatusCode::kOk ? absl::StatusCode::kUnavailable : code,
      std::string(header_->abort_message, bytes));
}

bool ShmRegion::IsHeld(int rank) const {
  return fd_ < 0 || IsLockedByOther(fd_, rank);
}

}  // namespace witan

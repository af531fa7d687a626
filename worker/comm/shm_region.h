#ifndef WITAN_WORKER_COMM_SHM_REGION_H_
#define WITAN_WORKER_COMM_SHM_REGION_H_

// The memory that the ranks of one group share: memory of this process when
// they are threads, a file when they are processes. Holds, in this order:
//
//   ShmHeader                       who this group is; why it was aborted
//   RankLine[size]                  how far each rank is, and what it calls
//   uint64_t[size][2][size]         AllToAll: bytes of a chunk, by sender,
//                                   parity of the operation, receiver
//   std::byte[size][2][send bytes]  two send buffers of every rank
//
// A rank writes only its own parts, except that anyone may abort. Two of
// everything, used in turn, are enough: a rank that calls operation k has done
// with operation k - 1, and no operation returns before all ranks have called
// it.

#include <absl/status/statusor.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "worker/comm/endpoint.h"
#include "worker/comm/exchange.h"

namespace witan {

// How far a rank is. `word` is twice the number of operations it has called
// (modulo 2^32), plus one once the group is aborted: whoever waits for a rank
// watches this one word, polling or in a futex, and misses neither.
struct alignas(64) RankLine {
  std::atomic<uint32_t> word;
  // Ranks that sleep on `word` and must be woken.
  std::atomic<uint32_t> num_sleepers;
  Call calls[2];  // by parity of the operation; written before `word`
};
static_assert(sizeof(RankLine) == 64);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

struct ShmHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t size;
  uint64_t epoch;
  uint64_t max_send_bytes;
  Nonce nonce;
  // 0: alive; 1: the reason is being written; 2: the reason can be read.
  std::atomic<uint32_t> abort_state;
  int32_t abort_code;
  uint32_t abort_message_bytes;
  char abort_message[kMaxAbortReasonBytes];
};

// Thread-safe. One object per rank for a file, one for all ranks in a process.
class ShmRegion {
 public:
  static constexpr uint32_t kAborted = 1;
  static constexpr uint32_t kOneCall = 2;

  static absl::StatusOr<std::unique_ptr<ShmRegion>> MakeInProcess(
      const CommunicatorOptions& options);
  // A new file for the group with this nonce, in `directory` (see
  // MakeShmRendezvous), held by rank options.rank.
  static absl::StatusOr<std::unique_ptr<ShmRegion>> CreateFile(
      const CommunicatorOptions& options, const Nonce& nonce,
      const std::string& directory);
  // The file that CreateFile made, held by rank options.rank. Nothing is
  // written before it is known to be that group's.
  static absl::StatusOr<std::unique_ptr<ShmRegion>> OpenFile(
      const CommunicatorOptions& options, const Nonce& nonce,
      const std::string& path);
  // Unmaps and lets go of the file; a file that still has its name loses it.
  ~ShmRegion();
  ShmRegion(const ShmRegion&) = delete;
  ShmRegion& operator=(const ShmRegion&) = delete;

  // Empty in process.
  const std::string& path() const { return path_; }
  // Takes the file's name away; the memory stays.
  void Unlink();

  RankLine& line(int rank) const { return lines_[rank]; }
  uint64_t* chunk_bytes(int rank, uint64_t parity) const {
    return chunk_bytes_ + (2 * rank + parity) * size_;
  }
  std::byte* send_buffer(int rank, uint64_t parity) const {
    return send_buffers_ + (2 * rank + parity) * send_stride_;
  }

  // Counts one more call of `rank` and wakes who waits for it. Returns false
  // once the group is aborted.
  bool Post(int rank);
  // Sleeps until the word of `rank` differs from `word` (may wake for no
  // reason) or `max_ms` have passed; then false.
  bool Sleep(int rank, uint32_t word, int64_t max_ms);

  // Gives every rank the status `status`, wakes all; only the first counts.
  void Abort(const absl::Status& status);
  // That status. REQUIRES: the caller saw kAborted in a word.
  absl::Status AbortStatus() const;

  // False when the process or object that held the part of `rank` is gone.
  // REQUIRES: the rank has held it. In process always true.
  bool IsHeld(int rank) const;

 private:
  struct Layout;

  ShmRegion(const CommunicatorOptions& options, const Layout& layout,
            std::byte* memory, int fd, std::string path);

  static absl::StatusOr<std::unique_ptr<ShmRegion>> CreateIn(
      const CommunicatorOptions& options, const Nonce& nonce,
      const std::string& directory);
  void Wake(int rank);

  const int size_;
  const size_t total_bytes_;
  std::byte* const memory_;
  const int fd_;  // -1 in process
  const std::string path_;
  std::atomic<bool> has_name_;
  ShmHeader* header_ = nullptr;
  RankLine* lines_ = nullptr;
  uint64_t* chunk_bytes_ = nullptr;
  std::byte* send_buffers_ = nullptr;
  size_t send_stride_ = 0;
};

}  // namespace witan

#endif  // WITAN_WORKER_COMM_SHM_REGION_H_

#ifndef WITAN_WORKER_COMM_EXCHANGE_H_
#define WITAN_WORKER_COMM_EXCHANGE_H_

// What the transports have in common: every operation is one exchange, in which
// each rank tells each other rank which operation it calls, and moves bytes to
// some of them. A transport implements Run(); ExchangeCommunicator turns the
// operations of Communicator into exchanges, flips the two send buffers, keeps
// the first error and the time.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/comm/communicator.h"

namespace witan {

enum class Operation : uint8_t {
  kNone,
  kConnect,  // the first of every communicator, made by its rendezvous
  kAllGather,
  kGather,
  kAllToAll,
  kBroadcast,
  kBarrier,
};

std::string_view NameOf(Operation operation);

// What a rank tells another about the operation that it calls. Read from other
// processes: every field is untrusted.
struct Call {
  Operation operation = Operation::kNone;
  uint8_t root = 0;
  uint16_t num_blocks = 1;
  uint32_t reserved = 0;
  uint64_t bytes = 0;  // of one block for the rank that is told
  bool operator==(const Call&) const = default;
};
static_assert(sizeof(Call) == 16);

// One operation as one rank sees it.
struct Exchange {
  struct Peer {
    Call told;      // what this rank tells it
    Call expected;  // what it must tell this rank
    bool sends_to = false;
    bool receives_from = false;
    // Of its chunk in each block of this rank's send buffer.
    size_t send_offset = 0;
  };
  uint64_t number = 0;      // of the operation, from 0 (kConnect)
  size_t block_bytes = 0;   // from one block of this rank to its next
  std::vector<Peer> peers;  // by rank, this one included
};

class ExchangeCommunicator : public Communicator {
 public:
  int rank() const final { return options_.rank; }
  int size() const final { return options_.size; }
  std::byte* SendBuffer() final { return send_buffers_[num_exchanges_ % 2]; }
  size_t max_send_bytes() const final { return options_.max_send_bytes; }
  absl::StatusOr<Views> AllGather(std::span<const size_t> bytes_of_rank) final;
  absl::StatusOr<Views> Gather(std::span<const size_t> bytes_of_rank,
                               int root) final;
  absl::StatusOr<Views> AllToAll(std::span<const size_t> send_bytes,
                                 std::span<const size_t> receive_bytes,
                                 std::span<const size_t> blocks_of_rank) final;
  absl::StatusOr<std::span<const std::byte>> Broadcast(size_t bytes,
                                                       int root) final;
  absl::Status Barrier() final;
  CommunicatorTimes times() const final;

  // Waits until all ranks have called it. REQUIRES: first call.
  absl::Status Connect(int64_t timeout_ms);

 protected:
  // The two buffers are max_send_bytes each, 64-byte aligned, and outlive this.
  ExchangeCommunicator(const CommunicatorOptions& options,
                       std::byte* first_send_buffer,
                       std::byte* second_send_buffer);

  const CommunicatorOptions& options() const { return options_; }

  // Tells all peers `told`, moves the bytes, and checks what the peers tell
  // (CheckCall). Calls SetView for every block received from another rank. An
  // error is told to all other ranks before it returns.
  virtual absl::Status Run(const Exchange& exchange) = 0;

  void SetView(int peer, size_t block, std::span<const std::byte> view) {
    views_[first_view_of_[peer] + block] = view;
  }

  // OK if peer told what was expected.
  absl::Status CheckCall(const Exchange& exchange, int peer,
                         const Call& told) const;

  // "AllGather (operation 12 of epoch 3)".
  std::string Describe(const Exchange& exchange) const;
  int64_t TimeoutMs(const Exchange& exchange) const {
    return exchange.number == 0 ? connect_timeout_ms_ : options_.timeout_ms;
  }
  // DEADLINE_EXCEEDED that names the ranks with late[rank].
  absl::Status Late(const Exchange& exchange,
                    const std::vector<bool>& late) const;

  void AddWaitNanos(int64_t nanos) { wait_ns_ += nanos; }

 private:
  // Starts exchange_: all peers told and expected to tell (operation, root, 0
  // bytes), nothing moves.
  void Begin(Operation operation, int root);
  absl::Status Perform();
  void CheckFits(size_t bytes) const;
  void CheckRoot(int root) const;

  const CommunicatorOptions options_;
  std::byte* const send_buffers_[2];
  int64_t connect_timeout_ms_ = 0;
  uint64_t num_exchanges_ = 0;
  Exchange exchange_;
  std::vector<std::span<const std::byte>> views_;
  std::vector<size_t> first_view_of_;
  absl::Status error_;
  int64_t total_ns_ = 0;
  int64_t wait_ns_ = 0;
};

// CHECKs size and rank, for the factories.
void CheckOptions(const CommunicatorOptions& options);

// Monotonic nanoseconds.
int64_t NowNanos();

// True when `num_ranks` ranks can poll at the same time on the cores that this
// process may use.
bool MaySpin(int num_ranks);

// One turn of a polling loop.
inline void SpinPause() { __builtin_ia32_pause(); }

// `reason`, cut at kMaxAbortReasonBytes.
std::string CutReason(std::string_view reason);

}  // namespace witan

#endif  // WITAN_WORKER_COMM_EXCHANGE_H_

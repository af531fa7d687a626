#ifndef WITAN_WORKER_COMM_COMMUNICATOR_H_
#define WITAN_WORKER_COMM_COMMUNICATOR_H_

// Transport between the ranks of one group under one epoch. It moves bytes and
// never adds: sums are made by worker/tree_sum in the order of the numerics
// contract.
//
// All ranks of a group call the same operations, in the same order, with
// agreeing sizes; a rank that does otherwise is found out, and the group fails
// with FAILED_PRECONDITION naming the rank and both calls. No operation returns
// before every rank of the group has called it. One thread uses a Communicator
// (Abort excepted); operations block until complete.
//
// Every operation has a deadline (CommunicatorOptions::timeout_ms);
// DEADLINE_EXCEEDED names the late ranks, UNAVAILABLE a rank that went away or
// an abort with its reason. The first error of one rank is told to all others,
// and after its first error a Communicator is dead: every later call returns
// that error.
//
// Data is sent from the communicator's own send buffer and received into its
// own memory, so that shared memory needs no copy:
//   float* mine = reinterpret_cast<float*>(comm.SendBuffer());
//   ... fill ...
//   ASSIGN_OR_RETURN(auto views, comm.AllGather(bytes_of_rank));
//   views[r] is what rank r sent.
// SendBuffer() is the memory of the *next* operation. It differs from the one
// before, so it may be filled while the views of the last operation are read;
// those stay valid until the next operation is called. Ranks that read views on
// a device's stream wait for it before they call the next operation.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/limits.h"

namespace witan {

// Time spent so far, for metrics.
struct CommunicatorTimes {
  int64_t total_us = 0;  // inside operations
  int64_t wait_us = 0;   // of that, waiting for other ranks
};

class Communicator {
 public:
  using Views = std::span<const std::span<const std::byte>>;

  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // max_send_bytes() bytes, 64-byte aligned, writable until the next operation.
  // No operation sends more.
  virtual std::byte* SendBuffer() = 0;
  virtual size_t max_send_bytes() const = 0;

  // Every rank r contributes the first bytes_of_rank[r] bytes of its send
  // buffer; the result has size() views.
  virtual absl::StatusOr<Views> AllGather(
      std::span<const size_t> bytes_of_rank) = 0;

  // As AllGather, but only `root` receives; others get an empty span.
  virtual absl::StatusOr<Views> Gather(std::span<const size_t> bytes_of_rank,
                                       int root) = 0;

  // The send buffer of rank r holds blocks_of_rank[r] adjacent blocks (at most
  // kMaxBlocksPerRank); a block holds size() adjacent chunks, chunk d
  // (send_bytes[d] bytes) for rank d. The result has one view per rank r and
  // block of r, in this order: what that block holds for this rank,
  // receive_bytes[r] bytes.
  virtual absl::StatusOr<Views> AllToAll(
      std::span<const size_t> send_bytes, std::span<const size_t> receive_bytes,
      std::span<const size_t> blocks_of_rank) = 0;

  // `root` sends the first `bytes` bytes of its send buffer to all; everyone
  // (root too) gets a view of them.
  virtual absl::StatusOr<std::span<const std::byte>> Broadcast(size_t bytes,
                                                               int root) = 0;

  // Returns when all ranks have called it.
  virtual absl::Status Barrier() = 0;

  // Makes the running and every later operation of *all* ranks of the group
  // fail with UNAVAILABLE and `reason` (cut at kMaxAbortReasonBytes; the first
  // one counts). Thread-safe, idempotent; the only call allowed from another
  // thread.
  virtual void Abort(const std::string& reason) = 0;

  virtual CommunicatorTimes times() const = 0;
};

struct CommunicatorOptions {
  int rank = 0;
  int size = 1;
  uint64_t epoch = 0;
  size_t max_send_bytes = 0;
  // Of one operation; kCollectiveTimeoutMs in production.
  int64_t timeout_ms = 0;
  // Ranks, of all groups, that share this host's cores; 0: `size`. Ranks that
  // are more than the cores never spin.
  int ranks_on_host = 0;
};

// Half of a communicator: a rank makes one, its endpoint() is carried to all
// other ranks as opaque bytes by the coordinator, and Connect() with
// everybody's endpoint (in rank order) makes the Communicator. Destroying it
// without Connect releases everything it holds.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  // At most kMaxRendezvousBytes; may be empty.
  virtual std::string endpoint() const = 0;
  // Blocks until all ranks are connected (timeout_ms in all, then
  // DEADLINE_EXCEEDED names who is missing). Endpoints are untrusted:
  // INVALID_ARGUMENT when one cannot be read, FAILED_PRECONDITION when a peer
  // is of another epoch, group or size. Called once; consumes the rendezvous.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      std::span<const std::string> endpoints, int64_t timeout_ms) = 0;
  // Makes a running or later Connect fail with UNAVAILABLE and `reason`; no
  // effect once Connect has returned. Thread-safe.
  virtual void Abort(const std::string& reason) = 0;
};

}  // namespace witan

#endif  // WITAN_WORKER_COMM_COMMUNICATOR_H_

#ifndef WITAN_WORKER_COMM_COMMUNICATOR_H_
#define WITAN_WORKER_COMM_COMMUNICATOR_H_

// Transport between the ranks of one group under one epoch. It moves bytes and
// never adds: sums are made by worker/tree_sum in the order of the numerics
// contract.
//
// All ranks of a group call the same operations, in the same order, with
// agreeing sizes. One thread uses a Communicator (Abort excepted). Operations
// block until complete. After its first error a Communicator is dead: every
// later call returns that error. Every wait has a deadline
// (CommunicatorOptions::timeout_ms); DEADLINE_EXCEEDED names the late rank,
// UNAVAILABLE a rank that went away or an abort with its reason.
//
// Data is sent from the communicator's own send buffer and received into its
// own memory, so that shared memory needs no copy:
//   float* mine = reinterpret_cast<float*>(comm.SendBuffer());
//   ... fill ...
//   ASSIGN_OR_RETURN(auto views, comm.AllGather(bytes_of_rank));
//   views[r] is what rank r sent.
// SendBuffer() is the memory of the *next* operation; it and the views of an
// operation stay valid until the next operation on this communicator returns.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

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
  virtual std::byte* SendBuffer() = 0;
  virtual size_t max_send_bytes() const = 0;

  // Every rank r contributes the first bytes_of_rank[r] bytes of its send
  // buffer; the result has size() views.
  virtual absl::StatusOr<Views> AllGather(
      std::span<const size_t> bytes_of_rank) = 0;

  // As AllGather, but only `root` receives; others get an empty span.
  virtual absl::StatusOr<Views> Gather(std::span<const size_t> bytes_of_rank,
                                       int root) = 0;

  // The send buffer holds size() adjacent chunks, chunk r (send_bytes[r] bytes)
  // for rank r; view r is what rank r sent here (receive_bytes[r] bytes).
  virtual absl::StatusOr<Views> AllToAll(
      std::span<const size_t> send_bytes,
      std::span<const size_t> receive_bytes) = 0;

  // `root` sends the first `bytes` bytes of its send buffer to all; everyone
  // (root too) gets a view of them.
  virtual absl::StatusOr<std::span<const std::byte>> Broadcast(size_t bytes,
                                                               int root) = 0;

  // Returns when all ranks have called it.
  virtual absl::Status Barrier() = 0;

  // Makes the running and every later operation of *all* ranks of the group
  // fail with UNAVAILABLE and `reason`. Thread-safe, idempotent; the only call
  // allowed from another thread.
  virtual void Abort(const std::string& reason) = 0;

  virtual CommunicatorTimes times() const = 0;
};

struct CommunicatorOptions {
  int rank = 0;
  int size = 1;
  uint64_t epoch = 0;
  size_t max_send_bytes = 0;
  int64_t timeout_ms = 0;  // of one wait; kCollectiveTimeoutMs in production
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
  // Blocks until all ranks are connected (kRendezvousTimeoutMs). Endpoints are
  // untrusted: INVALID_ARGUMENT when one cannot be read, FAILED_PRECONDITION
  // when a peer is of another epoch, group or size. Consumes the rendezvous.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      std::span<const std::string> endpoints) = 0;
  // Makes a running Connect fail. Thread-safe.
  virtual void Abort(const std::string& reason) = 0;
};

}  // namespace witan

#endif  // WITAN_WORKER_COMM_COMMUNICATOR_H_

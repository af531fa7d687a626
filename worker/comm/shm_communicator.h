#ifndef WITAN_WORKER_COMM_SHM_COMMUNICATOR_H_
#define WITAN_WORKER_COMM_SHM_COMMUNICATOR_H_

// Ranks that share a ShmRegion. Nothing is copied: a rank says that its send
// buffer is ready, waits until all others say so too, and reads theirs.

#include <memory>
#include <vector>

#include "worker/comm/exchange.h"
#include "worker/comm/shm_region.h"

namespace witan {

class ShmCommunicator : public ExchangeCommunicator {
 public:
  ShmCommunicator(const CommunicatorOptions& options,
                  std::shared_ptr<ShmRegion> region);
  // Aborts the group: a rank that left cannot take part any more.
  ~ShmCommunicator() override;

  void Abort(const std::string& reason) override;

 protected:
  absl::Status Run(const Exchange& exchange) override;

 private:
  absl::Status Share(const Exchange& exchange);
  // Until all ranks have called as many operations as this one.
  absl::Status WaitForAll(const Exchange& exchange);
  // Until `peer` has; polls first, then sleeps.
  absl::Status WaitFor(const Exchange& exchange, int peer);
  bool HasArrived(uint32_t word) const;
  // The error to give up with, if a late rank is dead or time is over.
  absl::Status CheckLatePeers(const Exchange& exchange, bool is_over) const;
  // Checks what `peer` told and sets the views of its blocks.
  absl::Status Receive(const Exchange& exchange, int peer);

  const std::shared_ptr<ShmRegion> region_;
  const int64_t max_spin_ns_;
  uint32_t num_calls_ = 0;  // times ShmRegion::kOneCall
  int64_t wait_start_ns_ = 0;
};

}  // namespace witan

#endif  // WITAN_WORKER_COMM_SHM_COMMUNICATOR_H_

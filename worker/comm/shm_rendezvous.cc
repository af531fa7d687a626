// The rendezvous of ranks that share memory, within a process or across.

#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "worker/comm/endpoint.h"
#include "worker/comm/rendezvous.h"
#include "worker/comm/shm_communicator.h"
#include "worker/comm/shm_region.h"

namespace witan {
namespace {

constexpr std::string_view kTransport = "shm";

// Connects over a region that it has from the start (ranks in one process, and
// rank 0 of a file) or opens when it knows everybody's endpoint.
class ShmRendezvous : public Rendezvous {
 public:
  // `region` is null when it has to be opened.
  ShmRendezvous(const CommunicatorOptions& options, std::string endpoint,
                absl::StatusOr<std::shared_ptr<ShmRegion>> region)
      : options_(options),
        endpoint_(std::move(endpoint)),
        region_(std::move(region)) {}

  ~ShmRendezvous() override {
    Abort(fmt::format("rank {} left before it was connected", options_.rank));
  }

  std::string endpoint() const override { return endpoint_; }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      std::span<const std::string> endpoints, int64_t timeout_ms) override {
    ASSIGN_OR_RETURN(const std::shared_ptr<ShmRegion> region, Open(endpoints));
    auto communicator = std::make_unique<ShmCommunicator>(options_, region);
    const absl::Status status = communicator->Connect(timeout_ms);
    // All have opened it, or the group will never be.
    region->Unlink();
    {
      MutexLock lock(mutex_);
      region_ = std::shared_ptr<ShmRegion>();
    }
    if (!status.ok()) return status;
    return communicator;
  }

  void Abort(const std::string& reason) override {
    MutexLock lock(mutex_);
    if (abort_reason_.empty()) {
      abort_reason_ = reason.empty() ? "no reason given" : reason;
    }
    if (region_.ok() && *region_ != nullptr) {
      (*region_)->Abort(AbortStatus());
    }
  }

 private:
  absl::Status AbortStatus() WITAN_REQUIRES(mutex_) {
    return Unavailable("rank {} aborted the group of epoch {}: {}",
                       options_.rank, options_.epoch, abort_reason_);
  }

  absl::StatusOr<std::shared_ptr<ShmRegion>> Open(
      std::span<const std::string> endpoints) {
    MutexLock lock(mutex_);
    if (!abort_reason_.empty()) return AbortStatus();
    if (!region_.ok()) return region_.status();
    // In a process there is nothing to read.
    if (endpoint_.empty()) return *region_;
    ASSIGN_OR_RETURN(const std::vector<Endpoint> group,
                     ParseEndpoints(kTransport, endpoints, options_));
    if (*region_ == nullptr) {
      ASSIGN_OR_RETURN(region_, ShmRegion::OpenFile(options_, group[0].nonce,
                                                    group[0].address));
    }
    return *region_;
  }

  const CommunicatorOptions options_;
  const std::string endpoint_;
  Mutex mutex_;
  std::string abort_reason_ WITAN_GUARDED_BY(mutex_);
  absl::StatusOr<std::shared_ptr<ShmRegion>> region_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace

std::vector<std::unique_ptr<Rendezvous>> MakeLocalRendezvous(
    const CommunicatorOptions& options) {
  absl::StatusOr<std::shared_ptr<ShmRegion>> region =
      ShmRegion::MakeInProcess(options);
  std::vector<std::unique_ptr<Rendezvous>> group;
  for (int rank = 0; rank < options.size; ++rank) {
    CommunicatorOptions of_rank = options;
    of_rank.rank = rank;
    CheckOptions(of_rank);
    group.push_back(std::make_unique<ShmRendezvous>(of_rank, "", region));
  }
  return group;
}

absl::StatusOr<std::unique_ptr<Rendezvous>> MakeShmRendezvous(
    const CommunicatorOptions& options, const std::string& directory) {
  CheckOptions(options);
  if (options.size == 1) return std::move(MakeLocalRendezvous(options)[0]);
  Endpoint endpoint{.epoch = options.epoch,
                    .rank = options.rank,
                    .size = options.size,
                    .max_send_bytes = options.max_send_bytes,
                    .nonce = DrawNonce()};
  std::shared_ptr<ShmRegion> region;
  if (options.rank == 0) {
    ASSIGN_OR_RETURN(region,
                     ShmRegion::CreateFile(options, endpoint.nonce, directory));
    endpoint.address = region->path();
  }
  return std::make_unique<ShmRendezvous>(
      options, EncodeEndpoint(kTransport, endpoint), region);
}

}  // namespace witan

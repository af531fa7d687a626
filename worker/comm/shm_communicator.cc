#include "worker/comm/shm_communicator.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace witan {
namespace {

// Turns of the polling loop between two looks at the clock.
constexpr int kPollsPerClockRead = 64;

}  // namespace

ShmCommunicator::ShmCommunicator(const CommunicatorOptions& options,
                                 std::shared_ptr<ShmRegion> region)
    : ExchangeCommunicator(options, region->send_buffer(options.rank, 0),
                           region->send_buffer(options.rank, 1)),
      region_(std::move(region)),
      max_spin_ns_(MaySpin(std::max(options.size, options.ranks_on_host))
                       ? kMaxSpinUs * 1000
                       : 0) {}

ShmCommunicator::~ShmCommunicator() {
  if (size() > 1) {
    region_->Abort(Unavailable("rank {} left the group of epoch {}", rank(),
                               options().epoch));
  }
}

void ShmCommunicator::Abort(const std::string& reason) {
  region_->Abort(Unavailable("rank {} aborted the group of epoch {}: {}",
                             rank(), options().epoch, reason));
}

absl::Status ShmCommunicator::Run(const Exchange& exchange) {
  const absl::Status status = Share(exchange);
  if (!status.ok()) region_->Abort(status);
  return status;
}

absl::Status ShmCommunicator::Share(const Exchange& exchange) {
  const uint64_t parity = exchange.number % 2;
  Call& told = region_->line(rank()).calls[parity];
  // Equal for all ranks but in AllToAll, which has a table of the bytes.
  told = exchange.peers[rank()].told;
  if (told.operation == Operation::kAllToAll) {
    uint64_t* chunk_bytes = region_->chunk_bytes(rank(), parity);
    for (int peer = 0; peer < size(); ++peer) {
      chunk_bytes[peer] = exchange.peers[peer].told.bytes;
    }
  }
  num_calls_ += ShmRegion::kOneCall;
  if (!region_->Post(rank())) return region_->AbortStatus();
  RETURN_IF_ERROR(WaitForAll(exchange));
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) RETURN_IF_ERROR(Receive(exchange, peer));
  }
  return absl::OkStatus();
}

bool ShmCommunicator::HasArrived(uint32_t word) const {
  return static_cast<int32_t>((word & ~ShmRegion::kAborted) - num_calls_) >= 0;
}

absl::Status ShmCommunicator::WaitForAll(const Exchange& exchange) {
  wait_start_ns_ = NowNanos();
  absl::Status status;
  for (int peer = 0; status.ok() && peer < size(); ++peer) {
    if (peer != rank()) status = WaitFor(exchange, peer);
  }
  AddWaitNanos(NowNanos() - wait_start_ns_);
  return status;
}

absl::Status ShmCommunicator::WaitFor(const Exchange& exchange, int peer) {
  const std::atomic<uint32_t>& word = region_->line(peer).word;
  for (int polls = 0;; ++polls) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (HasArrived(now)) return absl::OkStatus();
    if ((now & ShmRegion::kAborted) != 0) return region_->AbortStatus();
    if (max_spin_ns_ == 0) break;
    if (polls % kPollsPerClockRead == kPollsPerClockRead - 1 &&
        NowNanos() - wait_start_ns_ > max_spin_ns_) {
      break;
    }
    SpinPause();
  }
  const int64_t deadline_ns = wait_start_ns_ + TimeoutMs(exchange) * 1'000'000;
  for (;;) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (HasArrived(now)) return absl::OkStatus();
    if ((now & ShmRegion::kAborted) != 0) return region_->AbortStatus();
    const int64_t left_ms = (deadline_ns - NowNanos()) / 1'000'000 + 1;
    if (!region_->Sleep(
            peer, now, std::clamp<int64_t>(left_ms, 1, kPeerCheckIntervalMs))) {
      RETURN_IF_ERROR(CheckLatePeers(exchange, NowNanos() >= deadline_ns));
    }
  }
}

absl::Status ShmCommunicator::CheckLatePeers(const Exchange& exchange,
                                             bool is_over) const {
  // While connecting, a rank that is not there yet holds nothing.
  const bool connecting = exchange.number == 0;
  std::vector<bool> late(size(), false);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    // Whether it lives is asked first: a rank that calls and then dies has
    // called.
    const bool may_live = connecting || region_->IsHeld(peer);
    const uint32_t word =
        region_->line(peer).word.load(std::memory_order_acquire);
    late[peer] = !HasArrived(word);
    if (late[peer] && (word & ShmRegion::kAborted) != 0) {
      return region_->AbortStatus();
    }
    if (late[peer] && !may_live) {
      return Unavailable("rank {} went away: its process ended before {}", peer,
                         Describe(exchange));
    }
  }
  if (!is_over || std::find(late.begin(), late.end(), true) == late.end()) {
    return absl::OkStatus();
  }
  return Late(exchange, late);
}

absl::Status ShmCommunicator::Receive(const Exchange& exchange, int peer) {
  const uint64_t parity = exchange.number % 2;
  // One copy: what was checked is what is used.
  Call told = region_->line(peer).calls[parity];
  size_t offset = 0;
  size_t block_bytes = 0;
  if (told.operation == Operation::kAllToAll) {
    const uint64_t* chunk_bytes = region_->chunk_bytes(peer, parity);
    for (int receiver = 0; receiver < size(); ++receiver) {
      const uint64_t bytes =
          std::min<uint64_t>(chunk_bytes[receiver], max_send_bytes());
      if (receiver < rank()) offset += bytes;
      if (receiver == rank()) told.bytes = bytes;
      block_bytes += bytes;
    }
  }
  RETURN_IF_ERROR(CheckCall(exchange, peer, told));
  if (!exchange.peers[peer].receives_from) return absl::OkStatus();
  for (size_t block = 0; block < told.num_blocks; ++block) {
    const size_t begin = block * block_bytes + offset;
    if (begin + told.bytes > max_send_bytes()) {
      return FailedPrecondition(
          "rank {} sends block {} in {} beyond its send buffer of {} bytes",
          peer, block, Describe(exchange), max_send_bytes());
    }
    SetView(peer, block,
            {region_->send_buffer(peer, parity) + begin,
             static_cast<size_t>(told.bytes)});
  }
  return absl::OkStatus();
}

}  // namespace witan

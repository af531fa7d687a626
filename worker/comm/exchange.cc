#include "worker/comm/exchange.h"

#include <time.h>

#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/cores.h"
#include "base/status.h"

namespace witan {

std::string_view NameOf(Operation operation) {
  switch (operation) {
    case Operation::kNone:
      return "nothing";
    case Operation::kConnect:
      return "Connect";
    case Operation::kAllGather:
      return "AllGather";
    case Operation::kGather:
      return "Gather";
    case Operation::kAllToAll:
      return "AllToAll";
    case Operation::kBroadcast:
      return "Broadcast";
    case Operation::kBarrier:
      return "Barrier";
  }
  return "an unknown operation";
}

namespace {

std::string NameOfCall(const Call& call) {
  switch (call.operation) {
    case Operation::kNone:
    case Operation::kBarrier:
      return std::string(NameOf(call.operation));
    case Operation::kConnect:
      return fmt::format("Connect with a send buffer of {} bytes", call.bytes);
    case Operation::kAllToAll:
      return fmt::format("AllToAll of {} blocks of {} bytes", call.num_blocks,
                         call.bytes);
    case Operation::kGather:
    case Operation::kBroadcast:
      return fmt::format("{} of {} bytes, root {}", NameOf(call.operation),
                         call.bytes, call.root);
    default:
      return fmt::format("{} of {} bytes", NameOf(call.operation), call.bytes);
  }
}

}  // namespace

ExchangeCommunicator::ExchangeCommunicator(const CommunicatorOptions& options,
                                           std::byte* first_send_buffer,
                                           std::byte* second_send_buffer)
    : options_(options), send_buffers_{first_send_buffer, second_send_buffer} {
  exchange_.peers.resize(size());
  first_view_of_.resize(size());
}

absl::Status ExchangeCommunicator::Connect(int64_t timeout_ms) {
  WITAN_CHECK(num_exchanges_ == 0);
  connect_timeout_ms_ = timeout_ms;
  Begin(Operation::kConnect, 0);
  for (Exchange::Peer& peer : exchange_.peers) {
    peer.told.bytes = peer.expected.bytes = options_.max_send_bytes;
  }
  return Perform();
}

absl::StatusOr<Communicator::Views> ExchangeCommunicator::AllGather(
    std::span<const size_t> bytes_of_rank) {
  WITAN_CHECK(bytes_of_rank.size() == exchange_.peers.size());
  Begin(Operation::kAllGather, 0);
  for (int peer = 0; peer < size(); ++peer) {
    CheckFits(bytes_of_rank[peer]);
    exchange_.peers[peer].told.bytes = bytes_of_rank[rank()];
    exchange_.peers[peer].expected.bytes = bytes_of_rank[peer];
    exchange_.peers[peer].sends_to = true;
    exchange_.peers[peer].receives_from = true;
  }
  RETURN_IF_ERROR(Perform());
  return Views(views_);
}

absl::StatusOr<Communicator::Views> ExchangeCommunicator::Gather(
    std::span<const size_t> bytes_of_rank, int root) {
  WITAN_CHECK(bytes_of_rank.size() == exchange_.peers.size());
  CheckRoot(root);
  Begin(Operation::kGather, root);
  for (int peer = 0; peer < size(); ++peer) {
    CheckFits(bytes_of_rank[peer]);
    exchange_.peers[peer].told.bytes = bytes_of_rank[rank()];
    exchange_.peers[peer].expected.bytes = bytes_of_rank[peer];
    exchange_.peers[peer].sends_to = peer == root;
    exchange_.peers[peer].receives_from = rank() == root;
  }
  RETURN_IF_ERROR(Perform());
  return rank() == root ? Views(views_) : Views();
}

absl::StatusOr<Communicator::Views> ExchangeCommunicator::AllToAll(
    std::span<const size_t> send_bytes, std::span<const size_t> receive_bytes,
    std::span<const size_t> blocks_of_rank) {
  const size_t num_ranks = exchange_.peers.size();
  WITAN_CHECK(send_bytes.size() == num_ranks &&
              receive_bytes.size() == num_ranks &&
              blocks_of_rank.size() == num_ranks &&
              send_bytes[rank()] == receive_bytes[rank()]);
  Begin(Operation::kAllToAll, 0);
  size_t offset = 0;
  for (int peer = 0; peer < size(); ++peer) {
    WITAN_CHECK(blocks_of_rank[peer] <= kMaxBlocksPerRank);
    Exchange::Peer& p = exchange_.peers[peer];
    p.told.num_blocks = static_cast<uint16_t>(blocks_of_rank[rank()]);
    p.told.bytes = send_bytes[peer];
    p.expected.num_blocks = static_cast<uint16_t>(blocks_of_rank[peer]);
    p.expected.bytes = receive_bytes[peer];
    p.sends_to = true;
    p.receives_from = true;
    p.send_offset = offset;
    offset += send_bytes[peer];
  }
  exchange_.block_bytes = offset;
  CheckFits(offset * blocks_of_rank[rank()]);
  RETURN_IF_ERROR(Perform());
  return Views(views_);
}

absl::StatusOr<std::span<const std::byte>> ExchangeCommunicator::Broadcast(
    size_t bytes, int root) {
  CheckFits(bytes);
  CheckRoot(root);
  Begin(Operation::kBroadcast, root);
  for (int peer = 0; peer < size(); ++peer) {
    exchange_.peers[peer].told.bytes = bytes;
    exchange_.peers[peer].expected.bytes = bytes;
    exchange_.peers[peer].sends_to = rank() == root;
    exchange_.peers[peer].receives_from = peer == root;
  }
  RETURN_IF_ERROR(Perform());
  return views_[first_view_of_[root]];
}

absl::Status ExchangeCommunicator::Barrier() {
  Begin(Operation::kBarrier, 0);
  return Perform();
}

CommunicatorTimes ExchangeCommunicator::times() const {
  return {.total_us = total_ns_ / 1000, .wait_us = wait_ns_ / 1000};
}

void ExchangeCommunicator::Begin(Operation operation, int root) {
  const Call call{.operation = operation, .root = static_cast<uint8_t>(root)};
  exchange_.number = num_exchanges_;
  exchange_.block_bytes = 0;
  for (Exchange::Peer& peer : exchange_.peers) {
    peer = {.told = call, .expected = call};
  }
}

absl::Status ExchangeCommunicator::Perform() {
  if (!error_.ok()) return error_;
  const int64_t start = NowNanos();
  size_t num_views = 0;
  for (int peer = 0; peer < size(); ++peer) {
    first_view_of_[peer] = num_views;
    num_views += exchange_.peers[peer].expected.num_blocks;
  }
  views_.assign(num_views, {});
  const Exchange::Peer& self = exchange_.peers[rank()];
  if (self.receives_from) {
    for (size_t block = 0; block < self.told.num_blocks; ++block) {
      SetView(rank(), block,
              {SendBuffer() + block * exchange_.block_bytes + self.send_offset,
               self.told.bytes});
    }
  }
  error_ = Run(exchange_);
  ++num_exchanges_;
  total_ns_ += NowNanos() - start;
  return error_;
}

absl::Status ExchangeCommunicator::CheckCall(const Exchange& exchange, int peer,
                                             const Call& told) const {
  const Exchange::Peer& p = exchange.peers[peer];
  if (told == p.expected) return absl::OkStatus();
  return FailedPrecondition(
      "the ranks of epoch {} disagree on operation {}: rank {} calls {} and "
      "expects {} of rank {}, which calls {}",
      options_.epoch, exchange.number, rank(), NameOfCall(p.told),
      NameOfCall(p.expected), peer, NameOfCall(told));
}

std::string ExchangeCommunicator::Describe(const Exchange& exchange) const {
  return fmt::format("{} (operation {} of epoch {})",
                     NameOf(exchange.peers[rank()].told.operation),
                     exchange.number, options_.epoch);
}

absl::Status ExchangeCommunicator::Late(const Exchange& exchange,
                                        const std::vector<bool>& late) const {
  std::string ranks;
  int num_late = 0;
  for (int peer = 0; peer < size(); ++peer) {
    if (!late[peer]) continue;
    ranks += fmt::format("{}{}", num_late == 0 ? "" : ", ", peer);
    ++num_late;
  }
  return DeadlineExceeded(
      "rank{} {} did not come to {} within {} ms of rank {}",
      num_late == 1 ? "" : "s", ranks, Describe(exchange), TimeoutMs(exchange),
      rank());
}

void ExchangeCommunicator::CheckFits(size_t bytes) const {
  WITAN_CHECK(bytes <= options_.max_send_bytes,
              "{} bytes do not fit into the send buffer of {}", bytes,
              options_.max_send_bytes);
}

void ExchangeCommunicator::CheckRoot(int root) const {
  WITAN_CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size());
}

void CheckOptions(const CommunicatorOptions& options) {
  WITAN_CHECK(options.size >= 1 && options.size <= kMaxRanks,
              "a group of {} ranks", options.size);
  WITAN_CHECK(options.rank >= 0 && options.rank < options.size, "rank {} of {}",
              options.rank, options.size);
}

int64_t NowNanos() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

bool MaySpin(int num_ranks) { return num_ranks <= NumUsableCores(); }

std::string CutReason(std::string_view reason) {
  constexpr std::string_view kCut = " [cut]";
  if (reason.size() <= kMaxAbortReasonBytes) return std::string(reason);
  return std::string(reason.substr(0, kMaxAbortReasonBytes - kCut.size())) +
         std::string(kCut);
}

}  // namespace witan

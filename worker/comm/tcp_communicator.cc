#include "worker/comm/tcp_communicator.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr uint32_t kFrameMagic = 0x464e5457;  // "WTNF"
constexpr size_t kStagedBytes = size_t{64} << 10;
// A payload with this much left is read to its place without a copy.
constexpr size_t kDirectBytes = size_t{8} << 10;
static_assert(sizeof(FrameHeader) + kMaxAbortReasonBytes <= kStagedBytes);

constexpr size_t RoundUp(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t MemoryBytes(const CommunicatorOptions& options) {
  return RoundUp(options.max_send_bytes) * (2 + options.size);
}

// What a peer says, fit for a log and for UTF-8.
std::string Printable(const std::byte* text, size_t size) {
  std::string printable(reinterpret_cast<const char*>(text), size);
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  return printable;
}

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TcpCommunicator>> TcpCommunicator::Create(
    const CommunicatorOptions& options, std::vector<FileDescriptor> sockets) {
  ASSIGN_OR_RETURN(FileDescriptor event, MakeEvent());
  // Pages come into being when they are first used.
  void* memory = mmap(nullptr, MemoryBytes(options), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return ResourceExhausted(
        "no {} bytes of memory for the communication of {} ranks: {}",
        MemoryBytes(options), options.size, ErrorText(errno));
  }
  return std::unique_ptr<TcpCommunicator>(
      new TcpCommunicator(options, std::move(sockets), std::move(event),
                          static_cast<std::byte*>(memory)));
}

TcpCommunicator::TcpCommunicator(const CommunicatorOptions& options,
                                 std::vector<FileDescriptor> sockets,
                                 FileDescriptor event, std::byte* memory)
    : ExchangeCommunicator(options, memory,
                           memory + RoundUp(options.max_send_bytes)),
      event_(std::move(event)),
      memory_(memory),
      max_spin_ns_(MaySpin(std::max(options.size, options.ranks_on_host))
                       ? kMaxSpinUs * 1000
                       : 0),
      peers_(options.size) {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    peers_[peer].socket = std::move(sockets[peer]);
    peers_[peer].staged.resize(kStagedBytes);
    peers_[peer].receive_buffer =
        memory_ + (2 + peer) * RoundUp(options.max_send_bytes);
  }
}

TcpCommunicator::~TcpCommunicator() { munmap(memory_, MemoryBytes(options())); }

void TcpCommunicator::Abort(const std::string& reason) {
  MutexLock lock(mutex_);
  if (death_.has_value()) return;
  death_ = Unavailable("rank {} aborted the group of epoch {}: {}", rank(),
                       options().epoch, CutReason(reason));
  is_aborted_.store(true);
  // A running operation owns the sockets and tells the others itself.
  if (is_running_) {
    Signal(event_);
  } else {
    SendPoison(*death_);
  }
}

absl::Status TcpCommunicator::Run(const Exchange& exchange) {
  {
    MutexLock lock(mutex_);
    if (death_.has_value()) return *death_;
    is_running_ = true;
  }
  Begin(exchange);
  absl::Status status = Transfer(exchange);
  MutexLock lock(mutex_);
  is_running_ = false;
  if (death_.has_value() && !status.ok()) status = *death_;
  if (!status.ok()) death_ = status;
  if (death_.has_value()) SendPoison(*death_);
  return status;
}

void TcpCommunicator::Begin(const Exchange& exchange) {
  for (int i = 0; i < size(); ++i) {
    if (i == rank()) continue;
    Peer& peer = peers_[i];
    const Exchange::Peer& p = exchange.peers[i];
    const size_t payload_bytes =
        p.sends_to ? p.told.num_blocks * p.told.bytes : 0;
    peer.sent_header = {.magic = kFrameMagic,
                        .number = exchange.number,
                        .call = p.told,
                        .payload_bytes = payload_bytes};
    peer.bytes_to_send = sizeof(FrameHeader) + payload_bytes;
    peer.bytes_sent = 0;
    peer.has_header = false;
    peer.payload_bytes =
        p.receives_from ? p.expected.num_blocks * p.expected.bytes : 0;
    peer.payload_received = 0;
    for (size_t block = 0; p.receives_from && block < p.expected.num_blocks;
         ++block) {
      SetView(i, block,
              {peer.receive_buffer + block * p.expected.bytes,
               static_cast<size_t>(p.expected.bytes)});
    }
  }
}

absl::Status TcpCommunicator::Transfer(const Exchange& exchange) {
  const int64_t start_ns = NowNanos();
  const int64_t deadline_ns = start_ns + TimeoutMs(exchange) * 1'000'000;
  int64_t idle_since_ns = 0;
  for (;;) {
    bool progress = false;
    bool is_done = true;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      RETURN_IF_ERROR(Advance(exchange, peer, progress));
      is_done &= peers_[peer].has_sent() && peers_[peer].has_received();
    }
    if (is_aborted_.load(std::memory_order_relaxed)) {
      MutexLock lock(mutex_);
      return *death_;
    }
    if (is_done || progress) {
      if (idle_since_ns != 0) AddWaitNanos(NowNanos() - idle_since_ns);
      idle_since_ns = 0;
      if (is_done) return CheckPoisons();
      continue;
    }
    const int64_t now_ns = NowNanos();
    if (idle_since_ns == 0) idle_since_ns = now_ns;
    if (now_ns - idle_since_ns < max_spin_ns_) {
      SpinPause();
    } else {
      RETURN_IF_ERROR(Sleep(exchange, deadline_ns));
    }
  }
}

absl::Status TcpCommunicator::Advance(const Exchange& exchange, int peer,
                                      bool& progress) {
  if (!peers_[peer].has_sent()) {
    RETURN_IF_ERROR(Send(exchange, peer, progress));
  }
  if (!peers_[peer].has_received()) {
    RETURN_IF_ERROR(Receive(exchange, peer, progress));
  }
  return absl::OkStatus();
}

absl::Status TcpCommunicator::Send(const Exchange& exchange, int peer,
                                   bool& progress) {
  Peer& p = peers_[peer];
  const Exchange::Peer& e = exchange.peers[peer];
  iovec parts[1 + kMaxBlocksPerRank];
  size_t num_parts = 0;
  size_t skip = p.bytes_sent;
  const auto add = [&](std::byte* data, size_t bytes) {
    const size_t skipped = std::min(skip, bytes);
    skip -= skipped;
    if (skipped < bytes) parts[num_parts++] = {data + skipped, bytes - skipped};
  };
  add(reinterpret_cast<std::byte*>(&p.sent_header), sizeof(FrameHeader));
  for (size_t block = 0; e.sends_to && block < e.told.num_blocks; ++block) {
    add(SendBuffer() + block * exchange.block_bytes + e.send_offset,
        e.told.bytes);
  }
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = num_parts;
  const ssize_t sent =
      sendmsg(p.socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) {
    p.bytes_sent += static_cast<size_t>(sent);
    progress = true;
    return absl::OkStatus();
  }
  if (WouldBlock(errno)) return absl::OkStatus();
  // It may have said why before it went.
  bool ignored = false;
  Stage(p, ignored);
  RETURN_IF_ERROR(CheckPoison(p));
  return WentAway(exchange, peer);
}

absl::Status TcpCommunicator::Receive(const Exchange& exchange, int peer,
                                      bool& progress) {
  Peer& p = peers_[peer];
  if (!p.has_header) {
    if (!HasWholeHeader(p)) Stage(p, progress);
    RETURN_IF_ERROR(CheckPoison(p));
    if (!HasWholeHeader(p)) {
      return p.is_closed ? WentAway(exchange, peer) : absl::OkStatus();
    }
    RETURN_IF_ERROR(TakeHeader(exchange, peer));
    progress = true;
  }
  const size_t left = p.payload_bytes - p.payload_received;
  if (left == 0) return absl::OkStatus();
  std::byte* const place = p.receive_buffer + p.payload_received;
  if (p.num_staged() == 0 && left >= kDirectBytes && !p.is_closed) {
    const ssize_t received = recv(p.socket.get(), place, left, MSG_DONTWAIT);
    if (received > 0) {
      p.payload_received += static_cast<size_t>(received);
      progress = true;
    } else if (received == 0 || !WouldBlock(errno)) {
      p.is_closed = true;
    }
  } else {
    if (p.num_staged() == 0) Stage(p, progress);
    const size_t bytes = std::min(left, p.num_staged());
    std::memcpy(place, p.staged.data() + p.staged_begin, bytes);
    p.staged_begin += bytes;
    p.payload_received += bytes;
    progress |= bytes > 0;
  }
  if (p.is_closed && p.num_staged() == 0 && !p.has_received()) {
    return WentAway(exchange, peer);
  }
  return absl::OkStatus();
}

void TcpCommunicator::Stage(Peer& peer, bool& progress) {
  if (peer.staged_begin == peer.staged_end) {
    peer.staged_begin = peer.staged_end = 0;
  } else if (peer.staged_end == peer.staged.size()) {
    std::memmove(peer.staged.data(), peer.staged.data() + peer.staged_begin,
                 peer.num_staged());
    peer.staged_end -= std::exchange(peer.staged_begin, 0);
  }
  const size_t room = peer.staged.size() - peer.staged_end;
  if (room == 0 || peer.is_closed) return;
  const ssize_t received =
      recv(peer.socket.get(), peer.staged.data() + peer.staged_end, room,
           MSG_DONTWAIT);
  if (received > 0) {
    peer.staged_end += static_cast<size_t>(received);
    progress = true;
  } else if (received == 0 || !WouldBlock(errno)) {
    peer.is_closed = true;
  }
}

absl::Status TcpCommunicator::TakeHeader(const Exchange& exchange, int peer) {
  Peer& p = peers_[peer];
  const FrameHeader header = Front(p);
  if (header.magic != kFrameMagic || header.is_poison != 0) {
    return FailedPrecondition("rank {} sent no frame in {}", peer,
                              Describe(exchange));
  }
  if (header.number != exchange.number) {
    return FailedPrecondition("rank {} is at operation {}, rank {} in {}", peer,
                              header.number, rank(), Describe(exchange));
  }
  RETURN_IF_ERROR(CheckCall(exchange, peer, header.call));
  if (header.payload_bytes != p.payload_bytes) {
    return FailedPrecondition("rank {} sends {} bytes in {}; expected {}", peer,
                              header.payload_bytes, Describe(exchange),
                              p.payload_bytes);
  }
  p.staged_begin += sizeof(header);
  p.has_header = true;
  return absl::OkStatus();
}

absl::Status TcpCommunicator::CheckPoisons() const {
  for (const Peer& peer : peers_) RETURN_IF_ERROR(CheckPoison(peer));
  return absl::OkStatus();
}

FrameHeader TcpCommunicator::Front(const Peer& peer) {
  FrameHeader header;
  if (peer.num_staged() >= sizeof(header)) {
    std::memcpy(&header, peer.staged.data() + peer.staged_begin,
                sizeof(header));
  }
  return header;
}

bool TcpCommunicator::IsPoison(const FrameHeader& header) {
  return header.magic == kFrameMagic && header.is_poison != 0 &&
         header.payload_bytes <= kMaxAbortReasonBytes;
}

bool TcpCommunicator::HasWholeHeader(const Peer& peer) {
  const FrameHeader header = Front(peer);
  const size_t reason_bytes = IsPoison(header) ? header.payload_bytes : 0;
  return peer.num_staged() >= sizeof(header) + reason_bytes;
}

absl::Status TcpCommunicator::CheckPoison(const Peer& peer) {
  const FrameHeader header = Front(peer);
  if (!IsPoison(header) || !HasWholeHeader(peer)) return absl::OkStatus();
  auto code = absl::StatusCode::kUnavailable;
  if (header.number ==
          static_cast<uint64_t>(absl::StatusCode::kDeadlineExceeded) ||
      header.number ==
          static_cast<uint64_t>(absl::StatusCode::kFailedPrecondition)) {
    code = static_cast<absl::StatusCode>(header.number);
  }
  return absl::Status(
      code, Printable(peer.staged.data() + peer.staged_begin + sizeof(header),
                      header.payload_bytes));
}

absl::Status TcpCommunicator::WentAway(const Exchange& exchange,
                                       int peer) const {
  return Unavailable("rank {} went away: its connection closed before {}", peer,
                     Describe(exchange));
}

absl::Status TcpCommunicator::Sleep(const Exchange& exchange,
                                    int64_t deadline_ns) {
  polls_.assign(1, {.fd = event_.get(), .events = POLLIN, .revents = 0});
  polled_ranks_.assign(1, rank());
  for (int peer = 0; peer < size(); ++peer) {
    Peer& p = peers_[peer];
    if (peer == rank()) continue;
    // A rank that is done may be first to learn that the group is dead.
    const bool reads = !p.is_closed && p.num_staged() < p.staged.size();
    const int events = (reads ? POLLIN : 0) | (p.has_sent() ? 0 : POLLOUT);
    if (events == 0) continue;
    polls_.push_back({.fd = p.socket.get(),
                      .events = static_cast<int16_t>(events),
                      .revents = 0});
    polled_ranks_.push_back(peer);
  }
  const int64_t left_ns = deadline_ns - NowNanos();
  if (left_ns <= 0) {
    std::vector<bool> late(size(), false);
    for (int peer = 0; peer < size(); ++peer) {
      late[peer] = peer != rank() &&
                   !(peers_[peer].has_sent() && peers_[peer].has_received());
    }
    return Late(exchange, late);
  }
  poll(polls_.data(), polls_.size(), static_cast<int>(left_ns / 1'000'000 + 1));
  for (size_t i = 1; i < polls_.size(); ++i) {
    Peer& p = peers_[polled_ranks_[i]];
    if ((polls_[i].revents & ~POLLOUT) == 0 || !p.has_received()) continue;
    bool ignored = false;
    Stage(p, ignored);
    RETURN_IF_ERROR(CheckPoison(p));
  }
  return absl::OkStatus();
}

void TcpCommunicator::SendPoison(const absl::Status& status) {
  if (std::exchange(has_sent_poison_, true)) return;
  std::string message = CutReason(MessageOf(status));
  FrameHeader header{.magic = kFrameMagic,
                     .is_poison = 1,
                     .number = static_cast<uint64_t>(status.code()),
                     .payload_bytes = message.size()};
  iovec parts[] = {{&header, sizeof(header)}, {message.data(), message.size()}};
  msghdr poison = {};
  poison.msg_iov = parts;
  poison.msg_iovlen = 2;
  for (Peer& peer : peers_) {
    if (!peer.socket.is_open()) continue;
    // In the middle of a frame it would be taken for payload.
    const bool between_frames = peer.bytes_sent == 0 || peer.has_sent();
    if (between_frames) {
      sendmsg(peer.socket.get(), &poison, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    // Who could not be told sees the connection close.
    shutdown(peer.socket.get(), SHUT_WR);
  }
}

}  // namespace witan

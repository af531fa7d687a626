// How ranks that know each other's addresses come to have a connection between
// every two of them: each rank dials all lower ones and is dialled by all
// higher ones. Both ends show that they know the other's nonce. A connection
// that does not is dropped, and nobody waits less or more because of it.

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "base/status.h"
#include "worker/comm/endpoint.h"
#include "worker/comm/rendezvous.h"
#include "worker/comm/socket.h"
#include "worker/comm/tcp_communicator.h"

namespace witan {
namespace {

constexpr std::string_view kTransport = "tcp";
constexpr uint64_t kHelloMagic = 0x4f4c4c45'484e5457;  // "WTNHELLO"
constexpr uint32_t kProtocol = 1;

// The first bytes on a connection, in each direction.
struct Hello {
  uint64_t magic = kHelloMagic;
  uint32_t protocol = kProtocol;
  uint32_t size = 0;
  uint32_t from_rank = 0;
  uint32_t to_rank = 0;
  uint64_t epoch = 0;
  Nonce from_nonce{};
  Nonce to_nonce{};
  bool operator==(const Hello&) const = default;
};
static_assert(sizeof(Hello) == 64);

// A connection on which the other side's Hello is not complete.
struct Handshake {
  FileDescriptor socket;
  std::array<std::byte, sizeof(Hello)> bytes;
  size_t num_bytes = 0;

  enum class State { kIncomplete, kComplete, kClosed };
  // Reads what is there, never more than a Hello.
  State Read() {
    const ssize_t received = recv(socket.get(), bytes.data() + num_bytes,
                                  bytes.size() - num_bytes, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) {
      return State::kIncomplete;
    }
    if (received <= 0) return State::kClosed;
    num_bytes += static_cast<size_t>(received);
    return num_bytes == bytes.size() ? State::kComplete : State::kIncomplete;
  }
  Hello hello() const {
    Hello hello;
    std::memcpy(&hello, bytes.data(), sizeof(hello));
    return hello;
  }
};

// A Hello always fits into the buffer of a new connection.
bool SendHello(const FileDescriptor& socket, const Hello& hello) {
  return send(socket.get(), &hello, sizeof(hello),
              MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(hello);
}

class TcpRendezvous : public Rendezvous {
 public:
  TcpRendezvous(const CommunicatorOptions& options, Endpoint self,
                FileDescriptor listener, FileDescriptor event)
      : options_(options),
        self_(std::move(self)),
        listener_(std::move(listener)),
        event_(std::move(event)),
        dials_(options.rank),
        sockets_(options.size) {}

  std::string endpoint() const override {
    return EncodeEndpoint(kTransport, self_);
  }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      std::span<const std::string> endpoints, int64_t timeout_ms) override {
    const int64_t deadline_ns = NowNanos() + timeout_ms * 1'000'000;
    ASSIGN_OR_RETURN(group_, ParseEndpoints(kTransport, endpoints, options_));
    RETURN_IF_ERROR(ConnectSockets(deadline_ns, timeout_ms));
    listener_.Reset();
    accepted_.clear();
    ASSIGN_OR_RETURN(auto communicator,
                     TcpCommunicator::Create(options_, std::move(sockets_)));
    {
      MutexLock lock(mutex_);
      RETURN_IF_ERROR(abort_status_);
      communicator_ = communicator.get();
    }
    const absl::Status status = communicator->Connect(MillisUntil(deadline_ns));
    MutexLock lock(mutex_);
    communicator_ = nullptr;
    if (!status.ok()) return status;
    return communicator;
  }

  void Abort(const std::string& reason) override {
    MutexLock lock(mutex_);
    if (!abort_status_.ok()) return;
    abort_status_ = Unavailable("rank {} aborted the group of epoch {}: {}",
                                options_.rank, options_.epoch, reason);
    Signal(event_);
    if (communicator_ != nullptr) communicator_->Abort(reason);
  }

 private:
  struct DialState {
    Handshake handshake;  // no socket: not dialled yet, or hung up
    bool is_connected = false;
    int64_t not_before_ns = 0;
  };

  Hello HelloTo(int peer) const {
    return {.size = static_cast<uint32_t>(options_.size),
            .from_rank = static_cast<uint32_t>(options_.rank),
            .to_rank = static_cast<uint32_t>(peer),
            .epoch = options_.epoch,
            .from_nonce = self_.nonce,
            .to_nonce = group_[peer].nonce};
  }
  Hello HelloFrom(int peer) const {
    return {.size = static_cast<uint32_t>(options_.size),
            .from_rank = static_cast<uint32_t>(peer),
            .to_rank = static_cast<uint32_t>(options_.rank),
            .epoch = options_.epoch,
            .from_nonce = group_[peer].nonce,
            .to_nonce = self_.nonce};
  }
  bool IsMissing(int peer) const {
    return peer != options_.rank && !sockets_[peer].is_open();
  }

  static int64_t MillisUntil(int64_t deadline_ns) {
    return std::max<int64_t>(0, (deadline_ns - NowNanos()) / 1'000'000);
  }

  // Until there is a socket for every other rank.
  absl::Status ConnectSockets(int64_t deadline_ns, int64_t timeout_ms) {
    for (;;) {
      std::string missing;
      for (int peer = 0; peer < options_.size; ++peer) {
        if (!IsMissing(peer)) continue;
        missing += fmt::format("{}{}", missing.empty() ? "" : ", ", peer);
        if (peer < options_.rank) RETURN_IF_ERROR(StartDial(peer));
      }
      if (missing.empty()) return absl::OkStatus();
      const int64_t left_ms = MillisUntil(deadline_ns);
      if (left_ms == 0) {
        return DeadlineExceeded(
            "rank {} of epoch {} waited {} ms for a connection with rank {}",
            options_.rank, options_.epoch, timeout_ms, missing);
      }
      RETURN_IF_ERROR(WaitAndAdvance(left_ms));
    }
  }

  absl::Status StartDial(int peer) {
    DialState& dial = dials_[peer];
    if (dial.handshake.socket.is_open() || NowNanos() < dial.not_before_ns) {
      return absl::OkStatus();
    }
    dial = {};
    const std::string who = fmt::format("rank {}", peer);
    const auto address = ParseAddress(group_[peer].address);
    if (!address.ok()) return Annotate(address.status(), who);
    auto socket = Dial(*address);
    if (!socket.ok()) return Annotate(socket.status(), who);
    dial.handshake.socket = *std::move(socket);
    return absl::OkStatus();
  }

  // Waits for any of: an abort, a new connection, a step of a handshake.
  absl::Status WaitAndAdvance(int64_t max_ms) {
    std::vector<pollfd> polls = {{event_.get(), POLLIN, 0},
                                 {listener_.get(), POLLIN, 0}};
    bool redials = false;
    for (const DialState& dial : dials_) {
      const FileDescriptor& socket = dial.handshake.socket;
      // A negative descriptor is not polled.
      polls.push_back(
          {socket.get(),
           static_cast<int16_t>(dial.is_connected ? POLLIN : POLLOUT), 0});
      redials |= !socket.is_open() && dial.not_before_ns != 0;
    }
    const size_t num_accepted = accepted_.size();
    for (const Handshake& handshake : accepted_) {
      polls.push_back({handshake.socket.get(), POLLIN, 0});
    }
    poll(polls.data(), polls.size(),
         static_cast<int>(redials ? std::min(max_ms, kRedialPauseMs)
                                  : std::min<int64_t>(max_ms, 1 << 30)));
    {
      MutexLock lock(mutex_);
      RETURN_IF_ERROR(abort_status_);
    }
    for (int peer = 0; peer < options_.rank; ++peer) {
      if (polls[2 + peer].revents != 0) RETURN_IF_ERROR(AdvanceDial(peer));
    }
    for (size_t i = 0; i < num_accepted; ++i) {
      if (polls[2 + dials_.size() + i].revents != 0) Admit(accepted_[i]);
    }
    std::erase_if(accepted_,
                  [](const Handshake& h) { return !h.socket.is_open(); });
    return polls[1].revents != 0 ? AcceptAll() : absl::OkStatus();
  }

  absl::Status AdvanceDial(int peer) {
    DialState& dial = dials_[peer];
    FileDescriptor& socket = dial.handshake.socket;
    if (!dial.is_connected) {
      const int error = DialResult(socket);
      if (error != 0) {
        return Unavailable("rank {} at {} cannot be reached: {}", peer,
                           group_[peer].address, ErrorText(error));
      }
      dial.is_connected = SendHello(socket, HelloTo(peer));
      if (dial.is_connected) return absl::OkStatus();
    } else {
      const Handshake::State state = dial.handshake.Read();
      if (state == Handshake::State::kIncomplete) return absl::OkStatus();
      if (state == Handshake::State::kComplete) {
        if (dial.handshake.hello() != HelloFrom(peer)) {
          return FailedPrecondition(
              "who answers at {} is not rank {} of this group (epoch {})",
              group_[peer].address, peer, options_.epoch);
        }
        sockets_[peer] = std::move(socket);
        return absl::OkStatus();
      }
    }
    // It hung up: it may have had too many callers at once.
    socket.Reset();
    dial.not_before_ns = NowNanos() + kRedialPauseMs * 1'000'000;
    return absl::OkStatus();
  }

  absl::Status AcceptAll() {
    for (;;) {
      ASSIGN_OR_RETURN(FileDescriptor socket, Accept(listener_));
      if (!socket.is_open()) return absl::OkStatus();
      if (accepted_.size() == kMaxPendingHandshakes) accepted_.pop_front();
      accepted_.push_back({.socket = std::move(socket)});
    }
  }

  // Gives the connection its place when it has said who it is; closes it when
  // it is nobody.
  void Admit(Handshake& handshake) {
    const Handshake::State state = handshake.Read();
    if (state == Handshake::State::kIncomplete) return;
    FileDescriptor socket = std::move(handshake.socket);
    if (state == Handshake::State::kClosed) return;
    const Hello hello = handshake.hello();
    const int peer = hello.from_rank < static_cast<uint32_t>(options_.size)
                         ? static_cast<int>(hello.from_rank)
                         : 0;
    if (peer <= options_.rank || hello != HelloFrom(peer)) return;
    // A second one is of a rank that gave the first one up.
    if (SendHello(socket, HelloTo(peer))) sockets_[peer] = std::move(socket);
  }

  const CommunicatorOptions options_;
  const Endpoint self_;
  FileDescriptor listener_;
  const FileDescriptor event_;
  std::vector<Endpoint> group_;          // by rank
  std::vector<DialState> dials_;         // by rank, lower than this one
  std::deque<Handshake> accepted_;       // oldest first
  std::vector<FileDescriptor> sockets_;  // by rank, once known to be it

  Mutex mutex_;
  absl::Status abort_status_ WITAN_GUARDED_BY(mutex_);
  TcpCommunicator* communicator_ WITAN_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Rendezvous>> MakeTcpRendezvous(
    const CommunicatorOptions& options, const std::string& listen_host) {
  CheckOptions(options);
  if (options.size == 1) return std::move(MakeLocalRendezvous(options)[0]);
  SocketAddress bound;
  ASSIGN_OR_RETURN(FileDescriptor listener, Listen(listen_host, bound));
  ASSIGN_OR_RETURN(FileDescriptor event, MakeEvent());
  Endpoint self{.epoch = options.epoch,
                .rank = options.rank,
                .size = options.size,
                .max_send_bytes = options.max_send_bytes,
                .nonce = DrawNonce(),
                .address = AddressText(bound)};
  return std::make_unique<TcpRendezvous>(options, std::move(self),
                                         std::move(listener), std::move(event));
}

}  // namespace witan

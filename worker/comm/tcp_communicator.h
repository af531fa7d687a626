#ifndef WITAN_WORKER_COMM_TCP_COMMUNICATOR_H_
#define WITAN_WORKER_COMM_TCP_COMMUNICATOR_H_

// Ranks with a TCP connection between every two of them. In every operation
// each rank sends each other rank one frame: a header that says what it calls,
// then the bytes for that rank. Sending and receiving make progress together,
// so messages larger than any socket buffer cannot deadlock.
//
// Nothing that a peer sends is believed: headers are compared with what this
// rank expects before a byte of their payload is taken.

#include <poll.h>

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "worker/comm/exchange.h"
#include "worker/comm/socket.h"

namespace witan {

// Precedes every frame, in the byte order of x86-64.
struct FrameHeader {
  uint32_t magic = 0;
  uint32_t is_poison = 0;
  // Number of the operation, or the code of a poison's status.
  uint64_t number = 0;
  Call call;
  uint64_t payload_bytes = 0;
};
static_assert(sizeof(FrameHeader) == 40);

class TcpCommunicator : public ExchangeCommunicator {
 public:
  // `sockets` by rank, connected, nonblocking; none at this rank's own place.
  static absl::StatusOr<std::unique_ptr<TcpCommunicator>> Create(
      const CommunicatorOptions& options, std::vector<FileDescriptor> sockets);
  ~TcpCommunicator() override;

  void Abort(const std::string& reason) override;

 protected:
  absl::Status Run(const Exchange& exchange) override;

 private:
  struct Peer {
    FileDescriptor socket;

    FrameHeader sent_header;
    size_t bytes_to_send = 0;  // header and payload
    size_t bytes_sent = 0;

    // Bytes read ahead: headers, small payloads, perhaps the next frame.
    std::vector<std::byte> staged;
    size_t staged_begin = 0;
    size_t staged_end = 0;
    bool is_closed = false;  // nothing more can be read

    bool has_header = false;
    size_t payload_bytes = 0;
    size_t payload_received = 0;
    std::byte* receive_buffer = nullptr;

    bool has_sent() const { return bytes_sent == bytes_to_send; }
    bool has_received() const {
      return has_header && payload_received == payload_bytes;
    }
    size_t num_staged() const { return staged_end - staged_begin; }
  };

  TcpCommunicator(const CommunicatorOptions& options,
                  std::vector<FileDescriptor> sockets, FileDescriptor event,
                  std::byte* memory);

  void Begin(const Exchange& exchange);
  // Until all frames are sent and received.
  absl::Status Transfer(const Exchange& exchange);
  // What can be done with `peer` at once; sets `progress` when it was anything.
  absl::Status Advance(const Exchange& exchange, int peer, bool& progress);
  absl::Status Send(const Exchange& exchange, int peer, bool& progress);
  absl::Status Receive(const Exchange& exchange, int peer, bool& progress);
  // Reads ahead; sets `progress` when anything came.
  void Stage(Peer& peer, bool& progress);
  absl::Status TakeHeader(const Exchange& exchange, int peer);
  // The header at the front of what is staged; zeros when there is none.
  static FrameHeader Front(const Peer& peer);
  static bool IsPoison(const FrameHeader& header);
  // True when a header is staged, and its reason too when it is a poison.
  static bool HasWholeHeader(const Peer& peer);
  // The status of a whole poison frame at the front of what is staged.
  static absl::Status CheckPoison(const Peer& peer);
  // Of all peers: a group that died after its last frames is dead.
  absl::Status CheckPoisons() const;
  absl::Status WentAway(const Exchange& exchange, int peer) const;
  // Until a socket is ready, the group is aborted, or `deadline_ns`.
  absl::Status Sleep(const Exchange& exchange, int64_t deadline_ns);
  void SendPoison(const absl::Status& status) WITAN_REQUIRES(mutex_);

  const FileDescriptor event_;
  std::byte* const memory_;  // send buffers, then receive buffers
  const int64_t max_spin_ns_;
  std::vector<Peer> peers_;  // by rank
  std::vector<pollfd> polls_;
  std::vector<int> polled_ranks_;

  std::atomic<bool> is_aborted_ = false;
  Mutex mutex_;
  bool is_running_ WITAN_GUARDED_BY(mutex_) = false;
  bool has_sent_poison_ WITAN_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> death_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan

#endif  // WITAN_WORKER_COMM_TCP_COMMUNICATOR_H_

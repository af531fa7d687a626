#ifndef WITAN_NET_CHANNEL_H_
#define WITAN_NET_CHANNEL_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/limits.h"

namespace witan {

struct ChannelOptions {
  int max_receive_bytes = 0;
  // Longest pause between two attempts to connect.
  int64_t max_reconnect_pause_ms = kMaxReconnectPauseMs;
};

// A plaintext channel to "host:port" whose keepalive agrees with RpcServer's.
// Connects on first use. Calls are retried by gRPC only as their service
// config says, so never by default.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target,
                                           const ChannelOptions& options);

}  // namespace witan

#endif  // WITAN_NET_CHANNEL_H_

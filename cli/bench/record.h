#ifndef WITAN_CLI_BENCH_RECORD_H_
#define WITAN_CLI_BENCH_RECORD_H_

#include <grpcpp/support/status_code_enum.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace witan::bench {

// A chunk of a stream that held tokens.
struct TokenArrival {
  Micros at_us = 0;
  int32_t num_tokens = 0;
};

// What became of one request. Times are after the beginning of the load.
struct Record {
  int class_index = 0;
  int64_t index = 0;
  bool is_warmup = false;
  bool open_loop = false;
  Micros due_us = 0;   // when it should have been sent
  Micros sent_us = 0;  // when it was
  Micros ended_us = 0;
  int64_t prompt_tokens = 0;
  // Leading tokens of the prompt that the plan gives to other requests too.
  int64_t shared_tokens = 0;
  // Of the prompt, found in the server's prefix cache; as the server says.
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;  // asked for; got, if it did not fail
  std::optional<int64_t> prefix;
  std::vector<TokenArrival> arrivals;
  double server_queue_ms = 0;  // as the server says

  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string message;  // of a failure

  bool ok() const { return code == grpc::StatusCode::OK; }
  // Where its latencies are counted from. In an open loop that is when it was
  // due: a client that sends late must not make the server look faster.
  Micros begin_us() const { return open_loop ? due_us : sent_us; }
  Micros lag_us() const { return sent_us - due_us; }
  int64_t NumTokens() const {
    int64_t count = 0;
    for (const TokenArrival& arrival : arrivals) count += arrival.num_tokens;
    return count;
  }
};

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_RECORD_H_

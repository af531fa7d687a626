#ifndef WITAN_TESTS_CLUSTER_REPLICA_FIXTURE_H_
#define WITAN_TESTS_CLUSTER_REPLICA_FIXTURE_H_

// What the tests of Replica and ReplicaLoop share: the tiny model's identity,
// options that fit fake workers, and sinks that remember.

#include <absl/status/statusor.h>
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu_path.h"
#include "base/status.h"
#include "coordinator/cluster/replica.h"
#include "model/checkpoint.h"
#include "model/config_identity.h"
#include "model/manifest.h"
#include "tests/testing/fake_worker_group.h"
#include "tests/testing/tiny_model.h"

namespace witan {

// Pieces that each rank of tp = ep = num_ranks holds, hashed once per process.
inline const std::vector<PieceHashes>& TinyPieces(int num_ranks) {
  static auto* cache = new std::map<int, std::vector<PieceHashes>>;
  std::vector<PieceHashes>& pieces = (*cache)[num_ranks];
  if (!pieces.empty()) return pieces;
  const TinyModel model;
  const auto checkpoint = Checkpoint::Open(model.directory()).value();
  const Layout layout = MakeLayout(num_ranks, num_ranks).value();
  for (int rank = 0; rank < num_ranks; ++rank) {
    pieces.push_back(HashPieces(model.config(), *checkpoint,
                                MakeRankShard(model.config(), layout, rank), 1,
                                nullptr)
                         .value());
  }
  return pieces;
}

inline ReplicaOptions FakeReplicaOptions(int num_ranks) {
  ReplicaOptions options;
  options.model = TinyModelConfig();
  options.model_directory = "/models/tiny";
  options.layout = MakeLayout(num_ranks, num_ranks).value();
  options.build_id = "build-a";
  options.planner.limits.max_context_tokens = 256;
  options.planner.limits.max_step_tokens = 64;
  options.planner.limits.max_sequences = 8;
  options.planner.limits.num_blocks = 33;
  return options;
}

inline FakeWorkerOptions FakeTinyWorker(int num_ranks) {
  FakeWorkerOptions options;
  options.registration.build_id = "build-a";
  options.registration.host_id = "host";
  options.registration.host_name = "h";
  options.registration.process_id = 123;
  options.registration.device = "cpu";
  options.registration.cpu_path = kCpuPathAvx2;
  options.registration.num_cores = 4;
  options.registration.memory_bytes = int64_t{1} << 30;
  options.config = ConfigText(TinyModelConfig());
  options.piece_hashes = TinyPieces(num_ranks);
  options.vocab_size = TinyModelConfig().vocab_size;
  return options;
}

// What came out of one sequence.
struct Stream {
  SequenceSpec spec;
  std::vector<SampledToken> tokens;
  bool in_order = true;
  int num_ends = 0;
  absl::StatusOr<FinishReason> end = FinishReason::kCancelled;
  SequenceUsage usage;
  int64_t stop_at = -1;  // the sink refuses more after this index

  // Whether the tokens are those that follow the prompt, in order.
  bool IsExact() const {
    std::vector<TokenId> history = spec.prompt;
    for (const SampledToken& token : tokens) {
      if (token != FakeNextToken(history, spec.sampling, spec.choice,
                                 TinyModelConfig().vocab_size)) {
        return false;
      }
      history.push_back(token.token_id);
    }
    return in_order;
  }
};

class RecordingSink : public TokenSink {
 public:
  explicit RecordingSink(std::shared_ptr<Stream> stream)
      : stream_(std::move(stream)) {}
  bool OnToken(int64_t index, const SampledToken& token) override {
    stream_->in_order = stream_->in_order && stream_->num_ends == 0 &&
                        index == static_cast<int64_t>(stream_->tokens.size());
    stream_->tokens.push_back(token);
    return index != stream_->stop_at;
  }
  void OnFinished(absl::StatusOr<FinishReason> reason,
                  const SequenceUsage& usage) override {
    ++stream_->num_ends;
    stream_->end = std::move(reason);
    stream_->usage = usage;
  }

 private:
  std::shared_ptr<Stream> stream_;
};

// A sink that tells another thread of the end.
class PromisingSink : public TokenSink {
 public:
  explicit PromisingSink(std::shared_ptr<Stream> stream)
      : recorder_(std::move(stream)) {}
  std::future<void> Ended() { return ended_.get_future(); }
  bool OnToken(int64_t index, const SampledToken& token) override {
    return recorder_.OnToken(index, token);
  }
  void OnFinished(absl::StatusOr<FinishReason> reason,
                  const SequenceUsage& usage) override {
    recorder_.OnFinished(std::move(reason), usage);
    ended_.set_value();
  }

 private:
  RecordingSink recorder_;
  std::promise<void> ended_;
};

inline std::shared_ptr<Stream> MakeStream(SequenceId id, int64_t num_prompt,
                                          int64_t max_tokens) {
  auto stream = std::make_shared<Stream>();
  stream->spec.id = id;
  stream->spec.sampling.seed = id;
  stream->spec.sampling.num_top_logprobs = 0;
  for (int64_t i = 0; i < num_prompt; ++i) {
    stream->spec.prompt.push_back(static_cast<TokenId>((id * 31 + i) % 320));
  }
  stream->spec.stop.max_tokens = max_tokens;
  return stream;
}

// Two fake workers and a Replica of two ranks.
class ReplicaTest : public ::testing::Test {
 protected:
  WorkerId Join() { return Join(FakeTinyWorker(2)); }
  WorkerId Join(const FakeWorkerOptions& options) {
    return group_.Connect(options);
  }
  // Two workers that serve.
  void Serve() {
    first_ = Join();
    second_ = Join();
    group_.Settle(now_);
    ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  }
  std::shared_ptr<Stream> Submit(SequenceId id, int64_t num_prompt,
                                 int64_t max_tokens, int64_t stop_at = -1) {
    auto stream = MakeStream(id, num_prompt, max_tokens);
    stream->stop_at = stop_at;
    SubmitStream(stream);
    return stream;
  }
  void SubmitStream(const std::shared_ptr<Stream>& stream) {
    replica_.Submit(stream->spec, std::make_unique<RecordingSink>(stream),
                    now_);
  }
  std::string LastError() { return replica_.Snapshot().last_error; }
  static std::string Message(const Stream& stream) {
    EXPECT_EQ(stream.num_ends, 1);
    return std::string(MessageOf(stream.end.status()));
  }

  Micros now_ = 1000;
  Replica replica_{FakeReplicaOptions(2)};
  FakeWorkerGroup group_{replica_};
  WorkerId first_ = 0;
  WorkerId second_ = 0;
};

}  // namespace witan

#endif  // WITAN_TESTS_CLUSTER_REPLICA_FIXTURE_H_

#include "worker/worker.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "base/clock.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/config_identity.h"
#include "tests/testing/thread_cluster.h"
#include "tests/testing/tiny_model.h"
#include "worker/comm/rendezvous.h"

namespace witan {
namespace {

PrepareGroup Request(const std::string& directory, Epoch epoch = 1) {
  return {.epoch = epoch,
          .rank = 0,
          .tp = 1,
          .ep = 1,
          .model_directory = directory,
          .num_threads = 1,
          .max_context_tokens = 128,
          .max_step_tokens = 64,
          .max_sequences = 4,
          .num_blocks = 16};
}

// One sequence of three tokens in slot 0.
StepPlan OneStep(Epoch epoch, StepNumber step) {
  StepPlan plan{.epoch = epoch, .step = step};
  plan.slot_starts = {SlotStart{.slot = 0}};
  plan.token_ids = {10, 11, 12};
  plan.row_begin = {0, 3};
  plan.slots = {0};
  plan.first_positions = {0};
  plan.samples = {1};
  plan.new_block_begin = {0, 1};
  plan.new_block_ids = {1};
  return plan;
}

// Prepares and connects a group of one rank.
void Form(Worker& worker, const PrepareGroup& request) {
  auto prepared = worker.Prepare(request, nullptr);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  ASSERT_TRUE(
      worker
          .Connect({.epoch = request.epoch, .endpoints = {prepared->endpoints}})
          .ok());
}

TEST(WorkerTest, ASecondEpochGivesTheSameTokenAndTheSameIdentity) {
  const TinyModel model;
  Worker worker({});
  auto first = worker.Prepare(Request(model.directory(), 1), nullptr);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(
      worker.Connect({.epoch = 1, .endpoints = {first->endpoints}}).ok());
  auto before = worker.RunStep(OneStep(1, 1));
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_EQ(before->tokens.size(), 1u);

  auto second = worker.Prepare(Request(model.directory(), 2), nullptr);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->numerics_id, first->numerics_id);
  EXPECT_EQ(second->piece_hashes, first->piece_hashes);
  ASSERT_TRUE(
      worker.Connect({.epoch = 2, .endpoints = {second->endpoints}}).ok());
  auto after = worker.RunStep(OneStep(2, 1));
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->tokens, before->tokens);
}

// Replaces the model's config.json, as another process would find it.
void RewriteConfig(const TinyModel& model, const ModelConfig& config) {
  std::ofstream(model.directory() + "/config.json") << ConfigJson(config);
}

TEST(WorkerTest, WhateverAConfigChangesInTheComputationIsPartOfTheIdentity) {
  // None of these changes the shape of a tensor.
  const std::pair<std::string, std::function<void(ModelConfig&)>> changes[] = {
      {"nothing", [](ModelConfig&) {}},
      {"epsilon", [](ModelConfig& c) { c.norm_epsilon *= 2; }},
      {"window",
       [](ModelConfig& c) {
         c.sliding_window = 64;
         c.windowed_layers = {true, true};
       }},
      {"layers with a window",
       [](ModelConfig& c) {
         c.sliding_window = 64;
         c.windowed_layers = {false, true};
       }},
      {"top-k", [](ModelConfig& c) { c.experts_per_token = 3; }},
      {"theta", [](ModelConfig& c) { c.rope.theta *= 2; }},
      {"heads",
       [](ModelConfig& c) {
         c.num_heads = 4;
         c.num_kv_heads = 1;
         c.head_dim = 32;
         c.rope.rotary_dim = 32;
       }},
  };
  const TinyModel model;
  std::map<std::string, std::string> seen;
  for (const auto& [name, change] : changes) {
    ModelConfig config = model.config();
    change(config);
    RewriteConfig(model, config);
    Worker worker({});
    auto prepared = worker.Prepare(Request(model.directory()), nullptr);
    ASSERT_TRUE(prepared.ok()) << name << ": " << prepared.status();
    EXPECT_EQ(prepared->config, ConfigText(config));
    const auto [same, is_new] = seen.emplace(prepared->numerics_id, name);
    EXPECT_TRUE(is_new) << name << " has the numerics id of " << same->second;
  }
}

TEST(WorkerTest, TheContextThatIsServedIsNoPartOfTheIdentity) {
  const TinyModel model;
  Worker worker({});
  const auto one = worker.Prepare(Request(model.directory(), 1), nullptr);
  ASSERT_TRUE(one.ok()) << one.status();
  PrepareGroup longer = Request(model.directory(), 2);
  longer.max_context_tokens *= 2;
  const auto other = worker.Prepare(longer, nullptr);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(one->numerics_id, other->numerics_id);
}

TEST(WorkerTest, AStaleEpochOrAStepOutOfOrderIsRefusedAndChangesNothing) {
  const TinyModel model;
  Worker worker({});
  EXPECT_EQ(worker.RunStep(OneStep(1, 1)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_NO_FATAL_FAILURE(Form(worker, Request(model.directory(), 5)));
  EXPECT_EQ(worker.RunStep(OneStep(4, 1)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(worker.RunStep(OneStep(5, 2)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(worker.RunStep(OneStep(5, 1)).ok());
  EXPECT_EQ(worker.RunStep(OneStep(5, 1)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(worker.Connect({.epoch = 5, .endpoints = {{}}}).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(WorkerTest, AnAbortedEpochStaysDeadAndTheNextOneServes) {
  const TinyModel model;
  Worker worker({});
  ASSERT_NO_FATAL_FAILURE(Form(worker, Request(model.directory(), 1)));
  worker.Abort("rank 3 went away");
  const absl::Status status = worker.RunStep(OneStep(1, 1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(MessageOf(status).find("rank 3 went away"), std::string_view::npos)
      << status;
  ASSERT_NO_FATAL_FAILURE(Form(worker, Request(model.directory(), 2)));
  EXPECT_TRUE(worker.RunStep(OneStep(2, 1)).ok());
}

TEST(WorkerTest, AnAbortWhileTheWeightsAreReadEndsPrepareAtOnce) {
  const TinyModel model;
  Worker worker({});
  int num_reports = 0;
  const absl::Status status = worker
                                  .Prepare(Request(model.directory(), 1),
                                           [&](int64_t done, int64_t total) {
                                             EXPECT_LT(done, total);
                                             ++num_reports;
                                             worker.Abort("rank 3 went away");
                                           })
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NE(MessageOf(status).find("rank 3 went away"), std::string_view::npos)
      << status;
  EXPECT_EQ(num_reports, 1) << "the rest was read all the same";
  EXPECT_EQ(worker.Connect({.epoch = 1, .endpoints = {{}}}).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_NO_FATAL_FAILURE(Form(worker, Request(model.directory(), 2)));
  EXPECT_TRUE(worker.RunStep(OneStep(2, 1)).ok());
}

TEST(WorkerTest, AStopThatWasRequestedBeforePrepareEndsIt) {
  const TinyModel model;
  Worker worker({});
  std::stop_source stop;
  stop.request_stop();
  int num_reports = 0;
  const absl::Status status =
      worker
          .Prepare(
              Request(model.directory(), 1),
              [&](int64_t, int64_t) { ++num_reports; }, stop.get_token())
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(num_reports, 0);
}

// A group's half that lets time pass before it is connected, and notes how long
// it might have taken.
class SlowRendezvous : public Rendezvous {
 public:
  SlowRendezvous(const CommunicatorOptions& options,
                 std::vector<int64_t>& timeouts_ms)
      : half_(std::move(MakeLocalRendezvous(options)[0])),
        timeouts_ms_(timeouts_ms) {}
  std::string endpoint() const override { return half_->endpoint(); }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      std::span<const std::string> endpoints, int64_t timeout_ms) override {
    timeouts_ms_.push_back(timeout_ms);
    const Micros begin = MonotonicClock().Now();
    while (MonotonicClock().Now() - begin < 2 * kMicrosPerMilli) {
    }
    return half_->Connect(endpoints, kConnectTimeoutMs);
  }
  void Abort(const std::string& reason) override { half_->Abort(reason); }

 private:
  std::unique_ptr<Rendezvous> half_;
  std::vector<int64_t>& timeouts_ms_;
};

TEST(WorkerTest, TheGroupsOfOneRankShareTheTimeThatConnectingMayTake) {
  const TinyModel model;
  std::vector<int64_t> timeouts_ms;
  Worker worker({.make_rendezvous = [&](GroupKind, Transport,
                                        const CommunicatorOptions& o) {
    return std::make_unique<SlowRendezvous>(o, timeouts_ms);
  }});
  ASSERT_NO_FATAL_FAILURE(Form(worker, Request(model.directory())));
  ASSERT_EQ(timeouts_ms.size(), 3u);
  EXPECT_LE(timeouts_ms[0], kConnectTimeoutMs);
  EXPECT_LE(timeouts_ms[1], kConnectTimeoutMs - 2);
  EXPECT_LE(timeouts_ms[2], kConnectTimeoutMs - 4);
}

TEST(WorkerTest, AbsurdRequestsAreRefusedByName) {
  const TinyModel model;
  const std::pair<std::string, std::function<void(PrepareGroup&)>> damages[] = {
      {"tp", [](PrepareGroup& r) { r.tp = 9; }},
      {"ep", [](PrepareGroup& r) { r.ep = 0; }},
      {"rank", [](PrepareGroup& r) { r.rank = 1; }},
      {"rank", [](PrepareGroup& r) { r.rank = -1; }},
      {"num_threads", [](PrepareGroup& r) { r.num_threads = 0; }},
      {"num_threads", [](PrepareGroup& r) { r.num_threads = 1 << 20; }},
      {"max_context_tokens", [](PrepareGroup& r) { r.max_context_tokens = 0; }},
      {"max_context_tokens",
       [](PrepareGroup& r) { r.max_context_tokens = 100000; }},
      {"max_step_tokens", [](PrepareGroup& r) { r.max_step_tokens = -5; }},
      {"max_sequences",
       [](PrepareGroup& r) { r.max_sequences = int64_t{1} << 40; }},
      {"num_blocks", [](PrepareGroup& r) { r.num_blocks = 0; }},
  };
  Worker worker({});
  for (const auto& [name, damage] : damages) {
    PrepareGroup request = Request(model.directory());
    damage(request);
    const absl::Status status = worker.Prepare(request, nullptr).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(MessageOf(status).find(name), std::string_view::npos) << status;
  }
  EXPECT_TRUE(worker.Prepare(Request(model.directory()), nullptr).ok());
}

TEST(WorkerTest, AWorkerThatWasToldItsModelRefusesAnotherAndNamesBoth) {
  const TinyModel mine;
  const TinyModel other;
  Worker worker({.model_directory = mine.directory()});
  const absl::Status status =
      worker.Prepare(Request(other.directory()), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(MessageOf(status).find(mine.directory()), std::string_view::npos);
  EXPECT_NE(MessageOf(status).find(other.directory()), std::string_view::npos);
}

TEST(WorkerTest, ADamagedModelIsAnErrorAndAGoodOneServesAfterwards) {
  const TinyModel good;
  const TinyModel damaged;
  const std::string weights = damaged.directory() + "/model.safetensors";
  std::filesystem::resize_file(weights,
                               std::filesystem::file_size(weights) - 1);
  Worker worker({});
  const absl::Status truncated =
      worker.Prepare(Request(damaged.directory()), nullptr).status();
  EXPECT_EQ(truncated.code(), absl::StatusCode::kInvalidArgument) << truncated;
  EXPECT_NE(MessageOf(truncated).find("model.safetensors"),
            std::string_view::npos)
      << truncated;
  std::filesystem::remove(damaged.directory() + "/config.json");
  EXPECT_EQ(
      worker.Prepare(Request(damaged.directory()), nullptr).status().code(),
      absl::StatusCode::kNotFound);
  ASSERT_NO_FATAL_FAILURE(Form(worker, Request(good.directory(), 2)));
  EXPECT_TRUE(worker.RunStep(OneStep(2, 1)).ok());
}

// Puts `file` of `from` in the place of the one in `to`, by renaming.
void ReplaceFile(const TinyModel& from, const TinyModel& to,
                 const std::string& file) {
  const std::string copy = to.directory() + "/new-" + file;
  std::filesystem::copy_file(from.directory() + "/" + file, copy);
  std::filesystem::rename(copy, to.directory() + "/" + file);
}

TEST(WorkerTest, FilesThatWereReplacedAreReadAgainAtTheNextEpoch) {
  const TinyModel model;
  Worker worker({});
  const auto prepare = [&](Epoch epoch, int* num_reports = nullptr) {
    auto prepared = worker.Prepare(Request(model.directory(), epoch),
                                   [num_reports](int64_t, int64_t) {
                                     if (num_reports != nullptr) ++*num_reports;
                                   });
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared.ok() ? *std::move(prepared) : GroupPrepared();
  };
  const GroupPrepared first = prepare(1);
  int num_reports = 0;
  EXPECT_EQ(prepare(2, &num_reports).piece_hashes, first.piece_hashes);
  EXPECT_EQ(num_reports, 0) << "files that stayed were hashed again";

  ReplaceFile(TinyModel({.seed = 2}), model, "model.safetensors");
  const GroupPrepared other = prepare(3);
  EXPECT_NE(other.piece_hashes, first.piece_hashes);
  ASSERT_TRUE(
      worker.Connect({.epoch = 3, .endpoints = {other.endpoints}}).ok());
  const auto token = worker.RunStep(OneStep(3, 1));
  ASSERT_TRUE(token.ok()) << token.status();
  Worker fresh({});
  ASSERT_NO_FATAL_FAILURE(Form(fresh, Request(model.directory(), 3)));
  EXPECT_EQ(fresh.RunStep(OneStep(3, 1))->tokens, token->tokens);

  ModelConfig config = model.config();
  config.norm_epsilon *= 2;
  RewriteConfig(model, config);
  EXPECT_EQ(prepare(4).config, ConfigText(config));
}

TEST(WorkerTest, ProgressEndsWithEverythingVerified) {
  const TinyModel model;
  Worker worker({});
  int64_t last_done = -1;
  int64_t last_total = 0;
  ASSERT_TRUE(worker
                  .Prepare(Request(model.directory()),
                           [&](int64_t done, int64_t total) {
                             EXPECT_GE(done, last_done);
                             last_done = done;
                             last_total = total;
                           })
                  .ok());
  EXPECT_GT(last_total, 0);
  EXPECT_EQ(last_done, last_total);
}

TEST(WorkerTest, OneRankThatFailsEndsTheStepOfAllOthers) {
  const TinyModel model;
  auto cluster = ThreadCluster::Start(
      {.model_directory = model.directory(), .layout = {4, 4}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  (*cluster)->worker(2).Abort("pulled the plug");
  (*cluster)->Post(OneStep(1, 1));
  for (int rank = 0; rank < 4; ++rank) {
    const auto result = (*cluster)->Take();
    EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable)
        << result.status();
  }
}

}  // namespace
}  // namespace witan

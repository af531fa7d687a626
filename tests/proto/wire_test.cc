#include "proto/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using worker::v1::FromCoordinator;
using worker::v1::FromWorker;

constexpr int64_t kVocabSize = 1000;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Through bytes, as a peer would see it.
absl::StatusOr<WorkerMessage> ThroughWire(const WorkerMessage& message) {
  FromWorker parsed;
  EXPECT_TRUE(parsed.ParseFromString(ToProto(message).SerializeAsString()));
  return FromProto(parsed, kVocabSize);
}

absl::StatusOr<CoordinatorMessage> ThroughWire(
    const CoordinatorMessage& message) {
  FromCoordinator parsed;
  EXPECT_TRUE(parsed.ParseFromString(ToProto(message).SerializeAsString()));
  return FromProto(parsed);
}

RegisterWorker ARegistration() {
  return {.build_id = "0123456789abcdef",
          .protocol_version = 7,
          .host_id = "boot/1:2",
          .host_name = "node\xff",  // host names need not be UTF-8
          .process_id = 4711,
          .device = "cpu",
          .cpu_path = "avx512bf16",
          .num_cores = 64,
          .num_threads = 5,
          .memory_bytes = int64_t{64} << 30,
          .memory_is_of_host = true,
          .model_directory = "/models/m\xc3",
          .metrics_address = "127.0.0.1:9091"};
}

PrepareGroup APrepareGroup() {
  return {.epoch = 3,
          .rank = 5,
          .tp = 2,
          .ep = 8,
          .model_directory = "/models/m",
          .transport = Transport::kTcp,
          .num_threads = 4,
          .max_context_tokens = 4096,
          .max_step_tokens = 512,
          .max_sequences = 64,
          .num_blocks = 1000,
          .max_adapters = 3,
          .max_adapter_rank = 16,
          .one_shot_max_bytes = 65536};
}

GroupPrepared AGroupPrepared() {
  return {.epoch = 3,
          .endpoints = {.world = std::string("w\0x", 3),
                        .attention = "a",
                        .expert = std::string(kMaxRendezvousBytes, 'e')},
          .numerics_id = "numerics",
          .config = "hidden_size=64\n",
          .piece_hashes = {{"a#0", "00"}, {"b#1", "11"}},
          .weights_bytes = 123,
          .kv_bytes = 456};
}

// Two sequences: five rows of a prompt that starts slot 4, one decode row.
StepPlan APlan() {
  StepPlan plan;
  plan.epoch = 9;
  plan.step = 17;
  SlotStart start;
  start.slot = 4;
  start.choice = 1;
  start.sampling.temperature = 0.7f;
  start.sampling.top_k = 40;
  start.sampling.top_p = 0.9f;
  start.sampling.min_p = 0.05f;
  start.sampling.repetition_penalty = 1.1f;
  start.sampling.presence_penalty = -0.5f;
  start.sampling.frequency_penalty = 0.25f;
  start.sampling.logit_bias = {{.token_id = 3, .bias = -1.5f},
                               {.token_id = 8, .bias = 2.0f}};
  start.sampling.bad_words = {{4}, {5, 6, 7}};
  start.sampling.end_token_ids = {2, 9};
  start.sampling.min_tokens = 11;
  start.sampling.num_prompt_logprobs = 3;
  start.sampling.seed = 0xfedcba9876543210;
  start.sampling.num_top_logprobs = 5;
  start.history = {1, 2, 3, 4, 5, 6};
  start.num_prompt_tokens = 5;
  start.num_cached_tokens = 64;
  start.long_rope = true;
  start.adapter = 2;
  plan.slot_starts = {start};
  plan.token_ids = {1, 2, 3, 4, 5, kTokenOfPreviousStep};
  plan.row_begin = {0, 5, 6};
  plan.slots = {4, 0};
  plan.first_positions = {0, 63};
  plan.samples = {1, 1};
  plan.new_block_begin = {0, 1, 3};
  plan.new_block_ids = {7, 8, 9};
  plan.scored_rows = {0, 3};
  plan.scored_token_ids = {2, 5};
  return plan;
}

StepResult AResult() {
  StepResult result;
  result.epoch = 9;
  result.step = 17;
  result.tokens = {{.token_id = 999,
                    .logprob = -0.125f,
                    .top_logprobs = {{.token_id = 999, .logprob = -0.125f},
                                     {.token_id = 0, .logprob = -kInfinity}}},
                   {.token_id = 0, .logprob = 0, .top_logprobs = {}}};
  result.scores = {{.token_id = 5, .logprob = -2, .top_logprobs = {}}};
  result.timings = {.total_us = 1000, .communication_us = 300, .wait_us = 200};
  return result;
}

TEST(WireTest, WorkerMessagesComeBackAsTheyWere) {
  const std::vector<WorkerMessage> messages = {
      ARegistration(),
      LoadProgress{.epoch = 1, .bytes_done = 5, .bytes_total = 10},
      AGroupPrepared(),
      GroupConnected{.epoch = 2},
      AResult(),
      GroupFailed{.epoch = 4, .reason = Unavailable("rank 1 \xff is late")},
      Heartbeat{},
      AdapterLoaded{
          .epoch = 4, .index = 2, .load_number = 9, .content_hash = "00ff"},
      AdapterLoaded{.epoch = 4,
                    .index = 0,
                    .load_number = 10,
                    .status = InvalidArgument("rank \xff")}};
  for (const WorkerMessage& message : messages) {
    const auto back = ThroughWire(message);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, message) << "alternative " << message.index();
  }
}

TEST(WireTest, CoordinatorMessagesComeBackAsTheyWere) {
  const std::vector<CoordinatorMessage> messages = {
      WorkerAccepted{.worker_id = 12},
      APrepareGroup(),
      ConnectGroup{.epoch = 3,
                   .endpoints = {{.world = "1"}, {.attention = "2"}, {}}},
      APlan(),
      AbortGroup{.epoch = 3, .reason = "rank 1 left"},
      LoadAdapter{.epoch = 3,
                  .index = 1,
                  .load_number = 7,
                  .directory = "/adapters/\xc3"}};
  for (const CoordinatorMessage& message : messages) {
    const auto back = ThroughWire(message);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, message) << "alternative " << message.index();
  }
}

TEST(WireTest, ScoresAndBansThatCannotBeAreRefusedByField) {
  const std::vector<std::pair<const char*, std::function<void(StepPlan&)>>>
      plans = {
          {"scored_rows", [](auto& p) { p.scored_rows[0] = -1; }},
          {"scored_rows", [](auto& p) { p.scored_rows[1] = 6; }},
          {"scored_rows", [](auto& p) { p.scored_rows[1] = 0; }},
          {"scored_rows", [](auto& p) { p.scored_rows.pop_back(); }},
          {"scored_token_ids", [](auto& p) { p.scored_token_ids[0] = -1; }},
          {"bad_words",
           [](auto& p) { p.slot_starts[0].sampling.bad_words[0].clear(); }},
          {"bad_words",
           [](auto& p) {
             p.slot_starts[0].sampling.bad_words[0].resize(kMaxBadWordTokens +
                                                           1);
           }},
          {"bad_words",
           [](auto& p) {
             p.slot_starts[0].sampling.bad_words.resize(
                 kMaxBadWordSequences + 1, {1});
           }},
          {"bad_words",
           [](auto& p) {
             p.slot_starts[0].sampling.bad_words[1][1] = kMaxVocabSize;
           }},
          {"end_token_ids",
           [](auto& p) {
             p.slot_starts[0].sampling.end_token_ids.resize(kMaxEndTokenIds +
                                                            1);
           }},
          {"min_tokens",
           [](auto& p) { p.slot_starts[0].sampling.min_tokens = -1; }},
          {"num_prompt_logprobs",
           [](auto& p) {
             p.slot_starts[0].sampling.num_prompt_logprobs =
                 kMaxTopLogprobs + 1;
           }},
      };
  for (const auto& [field, damage] : plans) {
    StepPlan plan = APlan();
    damage(plan);
    const absl::Status status = ThroughWire(CoordinatorMessage(plan)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(field));
  }
  StepResult result = AResult();
  result.scores[0].logprob = 1;
  EXPECT_FALSE(ThroughWire(WorkerMessage(result)).ok());
  result.scores[0] = {.token_id = static_cast<TokenId>(kVocabSize)};
  EXPECT_FALSE(ThroughWire(WorkerMessage(result)).ok());
  result.scores.assign(kMaxStepTokens + 1, {});
  EXPECT_FALSE(ThroughWire(WorkerMessage(result)).ok());
}

TEST(WireTest, LogprobsKeepTheirBits) {
  StepResult result = AResult();
  result.tokens[0].logprob = std::nextafter(-1.0f, 0.0f);
  const auto back = ThroughWire(WorkerMessage(result));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(std::get<StepResult>(*back).tokens[0].logprob,
            std::nextafter(-1.0f, 0.0f));
}

TEST(WireTest, ReasonsThatAreTooLongAreCutBeforeTheyAreSent) {
  const std::string text(kMaxReasonBytes + 1, 'x');
  const auto failed = ThroughWire(
      WorkerMessage(GroupFailed{.epoch = 1, .reason = Internal("{}", text)}));
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_EQ(MessageOf(std::get<GroupFailed>(*failed).reason).size(),
            kMaxReasonBytes);
  const auto abort =
      ThroughWire(CoordinatorMessage(AbortGroup{.epoch = 1, .reason = text}));
  ASSERT_TRUE(abort.ok()) << abort.status();
}

struct WorkerRefusal {
  const char* field;  // that the message must name
  std::function<void(FromWorker&)> damage;
};

FromWorker Everything(const WorkerMessage& message) { return ToProto(message); }

TEST(WireTest, DamagedWorkerMessagesAreRefusedByField) {
  const std::string too_long(kMaxPathBytes + 1, 'x');
  const auto registration = [](auto& m) -> auto& {
    return *m.mutable_register_worker();
  };
  const std::vector<WorkerRefusal> registrations = {
      {"build_id", [&](auto& m) { registration(m).set_build_id(too_long); }},
      {"host_id", [&](auto& m) { registration(m).set_host_id(too_long); }},
      {"host_name", [&](auto& m) { registration(m).set_host_name(too_long); }},
      {"device", [&](auto& m) { registration(m).set_device(too_long); }},
      {"cpu_path", [&](auto& m) { registration(m).set_cpu_path(too_long); }},
      {"model_directory",
       [&](auto& m) { registration(m).set_model_directory(too_long); }},
      {"metrics_address",
       [&](auto& m) { registration(m).set_metrics_address(too_long); }},
      {"process_id", [&](auto& m) { registration(m).set_process_id(-1); }},
      {"num_cores",
       [&](auto& m) { registration(m).set_num_cores(kMaxCores + 1); }},
      {"num_threads",
       [&](auto& m) {
         registration(m).set_num_threads(kMaxThreadsPerRank + 1);
       }},
      {"memory_bytes", [&](auto& m) { registration(m).set_memory_bytes(-1); }},
  };
  const std::vector<WorkerRefusal> prepared = {
      {"epoch", [&](auto& m) { m.mutable_group_prepared()->set_epoch(0); }},
      {"endpoints.world",
       [&](auto& m) {
         m.mutable_group_prepared()->mutable_endpoints()->set_world(
             std::string(kMaxRendezvousBytes + 1, 'x'));
       }},
      {"endpoints.attention",
       [&](auto& m) {
         m.mutable_group_prepared()->mutable_endpoints()->set_attention(
             std::string(kMaxRendezvousBytes + 1, 'x'));
       }},
      {"endpoints.expert",
       [&](auto& m) {
         m.mutable_group_prepared()->mutable_endpoints()->set_expert(
             std::string(kMaxRendezvousBytes + 1, 'x'));
       }},
      {"numerics_id",
       [&](auto& m) { m.mutable_group_prepared()->set_numerics_id(too_long); }},
      {"config",
       [&](auto& m) {
         m.mutable_group_prepared()->set_config(
             std::string(kMaxConfigTextBytes + 1, 'x'));
       }},
      {"piece_hashes",
       [&](auto& m) {
         (*m.mutable_group_prepared()->mutable_piece_hashes())[too_long] = "0";
       }},
      {"piece_hashes",
       [&](auto& m) {
         (*m.mutable_group_prepared()->mutable_piece_hashes())["a"] = too_long;
       }},
      {"weights_bytes",
       [&](auto& m) { m.mutable_group_prepared()->set_weights_bytes(-1); }},
      {"kv_bytes",
       [&](auto& m) { m.mutable_group_prepared()->set_kv_bytes(-1); }},
  };
  const std::vector<WorkerRefusal> results = {
      {"epoch", [&](auto& m) { m.mutable_step_result()->set_epoch(0); }},
      {"tokens.token_id",
       [&](auto& m) {
         m.mutable_step_result()->mutable_tokens(0)->set_token_id(kVocabSize);
       }},
      {"tokens.token_id",
       [&](auto& m) {
         m.mutable_step_result()->mutable_tokens(0)->set_token_id(-1);
       }},
      {"logprob",
       [&](auto& m) {
         m.mutable_step_result()->mutable_tokens(0)->set_logprob(kNan);
       }},
      {"logprob",
       [&](auto& m) {
         m.mutable_step_result()->mutable_tokens(0)->set_logprob(kInfinity);
       }},
      {"tokens.top_logprobs",
       [&](auto& m) {
         for (int i = 0; i <= kMaxTopLogprobs; ++i) {
           m.mutable_step_result()->mutable_tokens(1)->add_top_logprobs();
         }
       }},
      {"tokens.top_logprobs.token_id",
       [&](auto& m) {
         m.mutable_step_result()
             ->mutable_tokens(0)
             ->mutable_top_logprobs(1)
             ->set_token_id(kVocabSize);
       }},
      {"logprob",
       [&](auto& m) {
         m.mutable_step_result()
             ->mutable_tokens(0)
             ->mutable_top_logprobs(1)
             ->set_logprob(kNan);
       }},
      {"tokens",
       [&](auto& m) {
         for (int i = 0; i <= kMaxStepSequences; ++i) {
           m.mutable_step_result()->add_tokens();
         }
       }},
      {"timings.total_us",
       [&](auto& m) {
         m.mutable_step_result()->mutable_timings()->set_total_us(-1);
       }},
      {"timings.communication_us",
       [&](auto& m) {
         m.mutable_step_result()->mutable_timings()->set_communication_us(-1);
       }},
      {"timings.wait_us",
       [&](auto& m) {
         m.mutable_step_result()->mutable_timings()->set_wait_us(-1);
       }},
  };
  const std::vector<WorkerRefusal> others = {
      {"epoch", [&](auto& m) { m.mutable_group_connected()->set_epoch(0); }},
      {"bytes_done",
       [&](auto& m) {
         m.mutable_load_progress()->set_epoch(1);
         m.mutable_load_progress()->set_bytes_done(2);
         m.mutable_load_progress()->set_bytes_total(1);
       }},
      {"bytes_total",
       [&](auto& m) {
         m.mutable_load_progress()->set_epoch(1);
         m.mutable_load_progress()->set_bytes_total(-1);
       }},
      {"code",
       [&](auto& m) {
         m.mutable_group_failed()->set_epoch(1);
         m.mutable_group_failed()->set_code(0);
       }},
      {"code",
       [&](auto& m) {
         m.mutable_group_failed()->set_epoch(1);
         m.mutable_group_failed()->set_code(17);
       }},
      {"message",
       [&](auto& m) {
         m.mutable_group_failed()->set_epoch(1);
         m.mutable_group_failed()->set_code(2);
         m.mutable_group_failed()->set_message(
             std::string(kMaxReasonBytes + 1, 'x'));
       }},
      {"without content", [&](auto& m) { m.Clear(); }},
  };
  const auto expect_refusals = [](const WorkerMessage& good,
                                  const std::vector<WorkerRefusal>& refusals) {
    for (const WorkerRefusal& refusal : refusals) {
      FromWorker message = Everything(good);
      refusal.damage(message);
      const auto parsed = FromProto(message, kVocabSize);
      ASSERT_FALSE(parsed.ok()) << refusal.field;
      EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(MessageOf(parsed.status())),
                  HasSubstr(refusal.field));
    }
  };
  expect_refusals(ARegistration(), registrations);
  expect_refusals(AGroupPrepared(), prepared);
  expect_refusals(AResult(), results);
  expect_refusals(Heartbeat{}, others);
}

struct PlanRefusal {
  const char* field;
  std::function<void(StepPlan&)> damage;
};

TEST(WireTest, PlansThatDoNotFitTogetherAreRefusedByField) {
  const std::vector<PlanRefusal> refusals = {
      {"epoch", [](StepPlan& p) { p.epoch = 0; }},
      {"step is 0", [](StepPlan& p) { p.step = 0; }},
      {"rows", [](StepPlan& p) { p.token_ids.clear(); }},
      {"token_ids",
       [](StepPlan& p) { p.token_ids.assign(kMaxStepTokens + 1, 0); }},
      {"token_ids", [](StepPlan& p) { p.token_ids[0] = -2; }},
      {"token_ids", [](StepPlan& p) { p.token_ids[0] = kMaxVocabSize; }},
      {"row_begin", [](StepPlan& p) { p.row_begin.clear(); }},
      {"row_begin",
       [](StepPlan& p) {
         p.row_begin = {0, 6};
       }},
      {"row_begin",
       [](StepPlan& p) {
         p.row_begin = {1, 5, 6};
       }},
      {"row_begin",
       [](StepPlan& p) {
         p.row_begin = {0, 5, 7};
       }},
      {"row_begin",
       [](StepPlan& p) {
         p.row_begin = {0, 0, 6};
       }},
      {"row_begin",
       [](StepPlan& p) {
         p.row_begin = {0, 7, 6};
       }},
      {"row_begin",
       [](StepPlan& p) {
         p.row_begin = {0, INT32_MIN, 6};
       }},
      {"slots",
       [](StepPlan& p) {
         p.slots = {4, 4};
       }},
      {"slots",
       [](StepPlan& p) {
         p.slots = {4, -1};
       }},
      {"slots",
       [](StepPlan& p) {
         p.slots = {4, kMaxStepSequences};
       }},
      {"sequences", [](StepPlan& p) { p.slots = {4}; }},
      {"first_positions", [](StepPlan& p) { p.first_positions[0] = -1; }},
      {"first_positions",
       [](StepPlan& p) { p.first_positions[1] = kMaxContextTokens; }},
      {"first_positions", [](StepPlan& p) { p.first_positions.pop_back(); }},
      {"samples", [](StepPlan& p) { p.samples.push_back(1); }},
      {"samples", [](StepPlan& p) { p.samples[0] = 2; }},
      {"new_block_begin",
       [](StepPlan& p) {
         p.new_block_begin = {0, 3};
       }},
      {"new_block_begin",
       [](StepPlan& p) {
         p.new_block_begin = {0, 2, 2};
       }},
      {"new_block_begin",
       [](StepPlan& p) {
         p.new_block_begin = {0, 4, 3};
       }},
      {"new_block_ids", [](StepPlan& p) { p.new_block_ids[0] = kNullBlock; }},
      {"new_block_ids", [](StepPlan& p) { p.new_block_ids[0] = kMaxBlocks; }},
      {"slot_starts",
       [](StepPlan& p) { p.slot_starts.push_back(p.slot_starts[0]); }},
      {"slot_starts.slot", [](StepPlan& p) { p.slot_starts[0].slot = -1; }},
      {"slot_starts.choice",
       [](StepPlan& p) { p.slot_starts[0].choice = kMaxChoices; }},
      {"slot_starts.history",
       [](StepPlan& p) { p.slot_starts[0].history[2] = -1; }},
      {"slot_starts.history",
       [](StepPlan& p) {
         SamplingParams& sampling = p.slot_starts[0].sampling;
         sampling.repetition_penalty = 1;
         sampling.presence_penalty = 0;
         sampling.frequency_penalty = 0;
         sampling.bad_words.clear();
       }},
      {"slot_starts.num_prompt_tokens",
       [](StepPlan& p) { p.slot_starts[0].num_prompt_tokens = 7; }},
      {"slot_starts.num_prompt_tokens",
       [](StepPlan& p) { p.slot_starts[0].num_prompt_tokens = -1; }},
      {"slot_starts.num_cached_tokens",
       [](StepPlan& p) { p.slot_starts[0].num_cached_tokens = -1; }},
      {"temperature",
       [](StepPlan& p) { p.slot_starts[0].sampling.temperature = kNan; }},
      {"temperature",
       [](StepPlan& p) { p.slot_starts[0].sampling.temperature = -1; }},
      {"top_k", [](StepPlan& p) { p.slot_starts[0].sampling.top_k = -1; }},
      {"top_p", [](StepPlan& p) { p.slot_starts[0].sampling.top_p = 0; }},
      {"min_p", [](StepPlan& p) { p.slot_starts[0].sampling.min_p = 1.5f; }},
      {"repetition_penalty",
       [](StepPlan& p) { p.slot_starts[0].sampling.repetition_penalty = 0; }},
      {"presence_penalty",
       [](StepPlan& p) { p.slot_starts[0].sampling.presence_penalty = kNan; }},
      {"frequency_penalty",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.frequency_penalty = kInfinity;
       }},
      {"logit_bias.bias",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.logit_bias[0].bias = kNan;
       }},
      {"logit_bias.token_id",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.logit_bias[1].token_id = 3;  // twice
       }},
      {"logit_bias",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.logit_bias.resize(kMaxLogitBias + 1);
       }},
      {"num_top_logprobs",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.num_top_logprobs = kMaxTopLogprobs + 1;
       }},
  };
  for (const PlanRefusal& refusal : refusals) {
    StepPlan plan = APlan();
    refusal.damage(plan);
    const auto parsed = ThroughWire(CoordinatorMessage(plan));
    ASSERT_FALSE(parsed.ok()) << refusal.field;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(MessageOf(parsed.status())),
                HasSubstr(refusal.field));
  }
}

struct PrepareRefusal {
  const char* field;
  std::function<void(worker::v1::PrepareGroup&)> damage;
};

TEST(WireTest, DamagedGroupOrdersAreRefusedByField) {
  const std::vector<PrepareRefusal> refusals = {
      {"epoch", [](auto& m) { m.set_epoch(0); }},
      {"rank", [](auto& m) { m.set_rank(-1); }},
      {"rank", [](auto& m) { m.set_rank(kMaxRanks); }},
      {"tp", [](auto& m) { m.set_tp(0); }},
      {"ep", [](auto& m) { m.set_ep(9); }},
      {"model_directory",
       [](auto& m) {
         m.set_model_directory(std::string(kMaxPathBytes + 1, '/'));
       }},
      {"transport",
       [](auto& m) { m.set_transport(worker::v1::TRANSPORT_UNSPECIFIED); }},
      {"transport",
       [](auto& m) { m.set_transport(static_cast<worker::v1::Transport>(9)); }},
      {"num_threads", [](auto& m) { m.set_num_threads(0); }},
      {"max_context_tokens", [](auto& m) { m.set_max_context_tokens(0); }},
      {"max_step_tokens",
       [](auto& m) { m.set_max_step_tokens(kMaxStepTokens + 1); }},
      {"max_sequences", [](auto& m) { m.set_max_sequences(0); }},
      {"num_blocks", [](auto& m) { m.set_num_blocks(1); }},
      {"one_shot_max_bytes", [](auto& m) { m.set_one_shot_max_bytes(-1); }},
      {"max_adapters", [](auto& m) { m.set_max_adapters(kMaxAdapters + 1); }},
      {"max_adapter_rank", [](auto& m) { m.set_max_adapter_rank(-1); }},
  };
  for (const PrepareRefusal& refusal : refusals) {
    FromCoordinator message = ToProto(CoordinatorMessage(APrepareGroup()));
    refusal.damage(*message.mutable_prepare_group());
    const auto parsed = FromProto(message);
    ASSERT_FALSE(parsed.ok()) << refusal.field;
    EXPECT_THAT(std::string(MessageOf(parsed.status())),
                HasSubstr(refusal.field));
  }
  FromCoordinator connect;
  connect.mutable_connect_group()->set_epoch(1);
  for (int i = 0; i <= kMaxRanks; ++i) {
    connect.mutable_connect_group()->add_endpoints();
  }
  EXPECT_FALSE(FromProto(connect).ok());
  EXPECT_FALSE(FromProto(FromCoordinator()).ok());
  FromCoordinator abort;
  abort.mutable_abort_group();
  EXPECT_FALSE(FromProto(abort).ok());
}

}  // namespace
}  // namespace witan

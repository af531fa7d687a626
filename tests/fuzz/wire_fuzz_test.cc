// Feeds damaged messages to everything that reads them. Whatever comes out of
// the mutations must be refused or accepted, never crash; what was accepted
// must survive another round trip unchanged.

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "proto/generation_request.h"
#include "proto/wire.h"

namespace witan {
namespace {

constexpr int kRounds = 20000;

// One seeded stream of mutations: a failure names its round, which replays it.
class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Mutate(std::string bytes, const std::string& other) {
    const int num_mutations = 1 + static_cast<int>(Below(4));
    for (int i = 0; i < num_mutations; ++i) {
      const size_t at = Below(bytes.size() + 1);
      switch (Below(6)) {
        case 0:  // a flipped bit
          if (at < bytes.size()) bytes[at] ^= static_cast<char>(1 << Below(8));
          break;
        case 1:  // another byte
          if (at < bytes.size()) bytes[at] = static_cast<char>(Below(256));
          break;
        case 2:  // cut short
          bytes.resize(at);
          break;
        case 3:  // bytes inserted
          bytes.insert(
              at, std::string(1 + Below(8), static_cast<char>(Below(256))));
          break;
        case 4:  // bytes removed
          bytes.erase(at, 1 + Below(4));
          break;
        case 5:  // the tail of another message
          bytes = bytes.substr(0, at) + other.substr(Below(other.size() + 1));
          break;
      }
    }
    return bytes;
  }

  size_t Below(size_t bound) {
    return std::uniform_int_distribution<size_t>(0, bound - 1)(random_);
  }

 private:
  std::mt19937_64 random_;
};

StepPlan APlan() {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 2;
  SlotStart start;
  start.slot = 1;
  start.sampling.repetition_penalty = 2;
  start.sampling.logit_bias = {{.token_id = 1, .bias = 1}};
  start.history = {1, 2, 3};
  start.num_prompt_tokens = 3;
  plan.slot_starts = {start};
  plan.token_ids = {1, 2, 3, -1};
  plan.row_begin = {0, 3, 4};
  plan.slots = {1, 0};
  plan.first_positions = {0, 9};
  plan.samples = {1, 1};
  plan.new_block_begin = {0, 1, 1};
  plan.new_block_ids = {5};
  return plan;
}

TEST(WireFuzzTest, DamagedWorkerMessagesNeverCrash) {
  StepResult result{.epoch = 1, .step = 2};
  result.tokens = {{.token_id = 4,
                    .logprob = -1,
                    .top_logprobs = {{.token_id = 4, .logprob = -1}}}};
  const std::vector<std::string> seeds = {
      ToProto(WorkerMessage(RegisterWorker{.build_id = "b", .device = "cpu"}))
          .SerializeAsString(),
      ToProto(WorkerMessage(GroupPrepared{.epoch = 1,
                                          .endpoints = {.world = "w"},
                                          .piece_hashes = {{"a", "b"}}}))
          .SerializeAsString(),
      ToProto(WorkerMessage(result)).SerializeAsString(),
      ToProto(WorkerMessage(LoadProgress{1, 2, 3})).SerializeAsString()};
  Mutator mutator(1);
  int num_accepted = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const std::string bytes = mutator.Mutate(
        seeds[mutator.Below(seeds.size())], seeds[mutator.Below(seeds.size())]);
    worker::v1::FromWorker message;
    if (!message.ParseFromString(bytes)) continue;
    const auto parsed = FromProto(message, /*vocab_size=*/10);
    if (!parsed.ok()) continue;
    ++num_accepted;
    const auto again = FromProto(ToProto(*parsed), /*vocab_size=*/10);
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_EQ(*again, *parsed);
  }
  EXPECT_GT(num_accepted, kRounds / 100) << "mutations are too wild";
}

TEST(WireFuzzTest, DamagedCoordinatorMessagesNeverCrash) {
  const std::vector<std::string> seeds = {
      ToProto(CoordinatorMessage(APlan())).SerializeAsString(),
      ToProto(CoordinatorMessage(PrepareGroup{.epoch = 1,
                                              .max_context_tokens = 9,
                                              .max_step_tokens = 9,
                                              .max_sequences = 9,
                                              .num_blocks = 9}))
          .SerializeAsString(),
      ToProto(CoordinatorMessage(
                  ConnectGroup{.epoch = 1, .endpoints = {{.world = "w"}, {}}}))
          .SerializeAsString()};
  Mutator mutator(2);
  int num_accepted = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const std::string bytes = mutator.Mutate(
        seeds[mutator.Below(seeds.size())], seeds[mutator.Below(seeds.size())]);
    worker::v1::FromCoordinator message;
    if (!message.ParseFromString(bytes)) continue;
    const auto parsed = FromProto(message);
    if (!parsed.ok()) continue;
    ++num_accepted;
    const auto again = FromProto(ToProto(*parsed));
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_EQ(*again, *parsed);
    if (const auto* plan = std::get_if<StepPlan>(&*parsed)) {
      // What a rank relies on.
      ASSERT_EQ(plan->row_begin.size(), plan->slots.size() + 1);
      ASSERT_EQ(plan->row_begin.back(), plan->num_rows());
      ASSERT_EQ(plan->new_block_begin.size(), plan->slots.size() + 1);
    }
  }
  EXPECT_GT(num_accepted, kRounds / 100) << "mutations are too wild";
}

TEST(WireFuzzTest, DamagedPublicRequestsNeverCrash) {
  ModelFacts model;
  model.name = "toy";
  model.config.vocab_size = 100;
  model.max_context_tokens = 64;
  v1::GenerateRequest generate;
  generate.set_request_id("id");
  generate.set_text("hello");
  generate.mutable_parameters()->set_temperature(0.5f);
  generate.mutable_parameters()->set_max_tokens(5);
  generate.mutable_parameters()->add_stop("x");
  (*generate.mutable_parameters()->mutable_logit_bias())[1] = 1;
  v1::ChatRequest chat;
  chat.add_messages()->set_role("user");
  chat.mutable_messages(0)->set_content("hi");
  (*chat.mutable_template_arguments())["a"] = "1";
  const std::vector<std::string> seeds = {generate.SerializeAsString(),
                                          chat.SerializeAsString()};
  Mutator mutator(3);
  int num_accepted = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const size_t which = mutator.Below(2);
    const std::string bytes = mutator.Mutate(seeds[which], seeds[1 - which]);
    v1::GenerateRequest as_generate;
    v1::ChatRequest as_chat;
    absl::StatusOr<GenerationRequest> parsed = absl::UnknownError("");
    if (which == 0 && as_generate.ParseFromString(bytes)) {
      parsed = ReadRequest(as_generate, model);
    } else if (which == 1 && as_chat.ParseFromString(bytes)) {
      parsed = ReadRequest(as_chat, model);
    }
    if (!parsed.ok()) continue;
    ++num_accepted;
    const SamplingParams& sampling = parsed->sampling;
    ASSERT_GE(sampling.temperature, 0);
    ASSERT_LE(sampling.temperature, kMaxTemperature);
    ASSERT_GT(sampling.top_p, 0);
    for (const LogitBias& bias : sampling.logit_bias) {
      ASSERT_LT(bias.token_id, 100);
    }
    if (FitToContext(*parsed, 10, 64).ok()) {
      ASSERT_GE(parsed->stop.max_tokens, 1);
      ASSERT_LE(parsed->stop.max_tokens, 54);
    }
  }
  EXPECT_GT(num_accepted, kRounds / 100) << "mutations are too wild";
}

}  // namespace
}  // namespace witan

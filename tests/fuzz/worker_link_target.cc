// What a worker and the coordinator say to each other. What passes the wall
// (proto/wire.h) survives another trip through it unchanged, and no plan that
// passed makes a worker's slots do anything but follow or refuse it.

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/delimited_message_util.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "model/memory_plan.h"
#include "proto/wire.h"
#include "tests/fuzz/message_change.h"
#include "tests/fuzz/target.h"
#include "tests/testing/tiny_model.h"
#include "worker/slots.h"

namespace witan::fuzz {
namespace {

namespace wv = worker::v1;

constexpr int64_t kVocabSize = 320;
constexpr EngineLimits kLimits = {.max_context_tokens = 512,
                                  .max_step_tokens = 64,
                                  .max_sequences = 4,
                                  .num_blocks = 100};

// --- A worker's slots --------------------------------------------------------

// Steps one SlotTable through the plans of an input, beside a model of what it
// must remember.
class Slots {
 public:
  void Follow(const StepPlan& plan, Promises* promises) {
    ResolvedStep step;
    const absl::Status status = table_->Resolve(plan, step);
    if (!status.ok()) {
      promises->Expect(absl::IsInvalidArgument(status),
                       "slots refuse a plan as an argument");
      // A table that refused is of no further use.
      table_.emplace(kLimits, kVocabSize);
      positions_.clear();
      last_tokens_.clear();
      num_followed_ = 0;
      return;
    }
    ++num_followed_;
    CheckStep(plan, step, promises);
    std::vector<TokenId> made;
    for (const int32_t slot : step.sample_slots) {
      made.push_back(static_cast<TokenId>((slot * 7 + plan.step) % kVocabSize));
      last_tokens_[slot] = made.back();
    }
    CheckSamples(step, promises);
    table_->Commit(step, made);
    CheckSamples(step, promises);
  }

  int num_followed() const { return num_followed_; }

 private:
  void CheckStep(const StepPlan& plan, const ResolvedStep& step,
                 Promises* promises) {
    for (const SlotStart& start : plan.slot_starts) {
      positions_[start.slot] = start.num_cached_tokens;
      last_tokens_.erase(start.slot);
    }
    promises->Expect(step.token_ids.size() == plan.token_ids.size(),
                     "every row has its token");
    promises->Expect(
        step.block_ids.size() ==
            plan.slots.size() * static_cast<size_t>(step.block_table_stride),
        "every sequence has its row of the block table");
    size_t num_samples = 0;
    for (int s = 0; s < plan.num_sequences(); ++s) {
      const int32_t slot = plan.slots[s];
      const auto known = positions_.find(slot);
      promises->Expect(
          known != positions_.end() && plan.first_positions[s] == known->second,
          "a sequence goes on where it stood");
      const int64_t end =
          plan.first_positions[s] + plan.row_begin[s + 1] - plan.row_begin[s];
      promises->Expect(end <= kLimits.max_context_tokens,
                       "no sequence outgrows the context");
      positions_[slot] = end;
      const int64_t num_blocks = (end + kBlockTokens - 1) / kBlockTokens;
      promises->Expect(num_blocks <= step.block_table_stride,
                       "the block table covers every position");
      for (int64_t i = 0; i < num_blocks; ++i) {
        const int32_t block = step.block_ids[s * step.block_table_stride + i];
        promises->Expect(block > kNullBlock && block < kLimits.num_blocks,
                         "blocks are of the cache");
      }
      for (int32_t row = plan.row_begin[s]; row < plan.row_begin[s + 1];
           ++row) {
        CheckToken(slot, plan.token_ids[row], step.token_ids[row], promises);
      }
      num_samples += plan.samples[s];
    }
    promises->Expect(step.sample_slots.size() == num_samples &&
                         step.sample_rows.size() == num_samples &&
                         step.sample_positions.size() == num_samples,
                     "what shall be sampled is");
    promises->Expect(step.score_rows.size() == step.score_slots.size() &&
                         step.score_rows.size() == step.score_token_ids.size(),
                     "what shall be scored is");
    for (size_t i = 0; i < step.score_rows.size(); ++i) {
      const SampleRow row =
          table_->RowToScore(step.score_slots[i], step.score_token_ids[i]);
      promises->Expect(
          step.score_rows[i] >= 0 && step.score_rows[i] < plan.num_rows() &&
              row.given_token_id >= 0 && row.given_token_id < kVocabSize &&
              row.params->num_top_logprobs >= 0,
          "scored rows are of the step");
    }
  }

  void CheckToken(int32_t slot, TokenId planned, TokenId resolved,
                  Promises* promises) {
    promises->Expect(resolved >= 0 && resolved < kVocabSize,
                     "tokens are of the vocabulary");
    const auto last = last_tokens_.find(slot);
    const TokenId expected =
        planned == kTokenOfPreviousStep && last != last_tokens_.end()
            ? last->second
            : planned;
    promises->Expect(resolved == expected, "a row has the token of its plan");
  }

  void CheckSamples(const ResolvedStep& step, Promises* promises) {
    for (size_t i = 0; i < step.sample_slots.size(); ++i) {
      const SampleRow row =
          table_->RowToSample(step.sample_slots[i], step.sample_positions[i]);
      promises->Expect(
          row.seen_ids.size() == row.output_counts.size() &&
              std::is_sorted(row.seen_ids.begin(), row.seen_ids.end()),
          "penalties see each token once");
      promises->Expect(
          std::all_of(row.banned_ids.begin(), row.banned_ids.end(),
                      [](TokenId id) { return id >= 0 && id < kVocabSize; }),
          "banned tokens are of the vocabulary");
    }
  }

  std::optional<SlotTable> table_{std::in_place, kLimits, kVocabSize};
  std::map<int32_t, int64_t> positions_;
  std::map<int32_t, TokenId> last_tokens_;
  int num_followed_ = 0;
};

// --- FromCoordinator ---------------------------------------------------------

void CheckPlan(const StepPlan& plan, Promises* promises) {
  promises->Expect(plan.row_begin.size() == plan.slots.size() + 1 &&
                       plan.row_begin.back() == plan.num_rows() &&
                       plan.new_block_begin.size() == plan.slots.size() + 1 &&
                       plan.first_positions.size() == plan.slots.size() &&
                       plan.samples.size() == plan.slots.size(),
                   "the arrays of a plan fit together");
  promises->Expect(plan.num_rows() <= kMaxStepTokens &&
                       plan.num_sequences() <= kMaxStepSequences,
                   "a plan is within limits");
}

void CheckGroup(const PrepareGroup& group, Promises* promises) {
  const auto layout = MakeLayout(group.tp, group.ep);
  promises->Expect(layout.ok(), "a group has a layout");
  if (!layout.ok() || group.rank >= layout->num_ranks()) return;
  const MemoryPlan plan =
      MakeMemoryPlan(TinyModelConfig(), *layout, group.rank,
                     {.max_context_tokens = group.max_context_tokens,
                      .max_step_tokens = group.max_step_tokens,
                      .max_sequences = group.max_sequences,
                      .num_blocks = group.num_blocks},
                     group.num_threads);
  promises->Expect(plan.total_bytes() > 0, "the memory plan does not overflow");
}

std::vector<wv::FromCoordinator> ReadAll(std::string_view input) {
  std::vector<wv::FromCoordinator> messages;
  google::protobuf::io::ArrayInputStream stream(input.data(),
                                                static_cast<int>(input.size()));
  bool is_at_end = false;
  wv::FromCoordinator message;
  while (google::protobuf::util::ParseDelimitedFromZeroCopyStream(
      &message, &stream, &is_at_end)) {
    messages.push_back(message);
    message.Clear();
  }
  return messages;
}

std::string Write(const std::vector<wv::FromCoordinator>& messages) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  for (const wv::FromCoordinator& message : messages) {
    google::protobuf::util::SerializeDelimitedToZeroCopyStream(message,
                                                               &stream);
  }
  return bytes;
}

StepPlan FirstPlan() {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  SlotStart penalized;
  penalized.slot = 1;
  penalized.sampling.repetition_penalty = 2;
  penalized.sampling.logit_bias = {{.token_id = 1, .bias = 1}};
  penalized.sampling.bad_words = {{7}, {2, 9}};
  penalized.sampling.end_token_ids = {4};
  penalized.sampling.min_tokens = 2;
  penalized.sampling.num_prompt_logprobs = 1;
  penalized.history = {1, 2, 3, 2};
  penalized.num_prompt_tokens = 3;
  SlotStart plain;
  plain.slot = 0;
  plan.slot_starts = {penalized, plain};
  plan.token_ids = {1, 2, 3, 2, 9, 9};
  plan.row_begin = {0, 4, 6};
  plan.slots = {1, 0};
  plan.first_positions = {0, 0};
  plan.samples = {1, 0};
  plan.new_block_begin = {0, 1, 2};
  plan.new_block_ids = {5, 6};
  plan.scored_rows = {0, 1};
  plan.scored_token_ids = {2, 3};
  return plan;
}

StepPlan SecondPlan() {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 2;
  plan.token_ids = {kTokenOfPreviousStep, 7, 8};
  plan.row_begin = {0, 1, 3};
  plan.slots = {1, 0};
  plan.first_positions = {4, 2};
  plan.samples = {1, 1};
  plan.new_block_begin = {0, 0, 0};
  return plan;
}

}  // namespace

Outcome RunFromCoordinator(std::string_view input) {
  Promises promises;
  Slots slots;
  absl::Status first_refusal = InvalidArgument("no message");
  bool is_accepted = false;
  for (const wv::FromCoordinator& message : ReadAll(input)) {
    const auto parsed = FromProto(message);
    if (!parsed.ok()) {
      const Outcome refused = promises.Refused(parsed.status());
      promises.Expect(refused.broken.empty(), refused.broken);
      continue;
    }
    is_accepted = true;
    const auto again = FromProto(ToProto(*parsed));
    promises.Expect(again.ok() && *again == *parsed,
                    "another trip through the wall changes nothing");
    if (const auto* plan = std::get_if<StepPlan>(&*parsed)) {
      CheckPlan(*plan, &promises);
      slots.Follow(*plan, &promises);
    } else if (const auto* group = std::get_if<PrepareGroup>(&*parsed)) {
      CheckGroup(*group, &promises);
    }
  }
  return is_accepted ? promises.Accepted() : promises.Refused(first_refusal);
}

std::vector<std::string> FromCoordinatorSeeds() {
  const auto one = [](const CoordinatorMessage& message) {
    return Write({ToProto(message)});
  };
  StepPlan again = FirstPlan();
  again.step = 3;
  again.slot_starts[1].num_cached_tokens = kBlockTokens;
  again.first_positions[1] = kBlockTokens;
  again.new_block_begin = {0, 1, 3};
  again.new_block_ids = {5, 6, 7};
  return {
      Write({ToProto(CoordinatorMessage(FirstPlan())),
             ToProto(CoordinatorMessage(SecondPlan())),
             ToProto(CoordinatorMessage(again))}),
      one(FirstPlan()),
      one(WorkerAccepted{.worker_id = 7}),
      one(PrepareGroup{.epoch = 1,
                       .rank = 1,
                       .tp = 3,
                       .ep = 2,
                       .model_directory = "/m",
                       .transport = Transport::kTcp,
                       .max_context_tokens = 9,
                       .max_step_tokens = 9,
                       .max_sequences = 9,
                       .num_blocks = 9,
                       .one_shot_max_bytes = 1024}),
      one(ConnectGroup{.epoch = 1,
                       .endpoints = {{.world = "w", .attention = "a"}, {}}}),
      one(AbortGroup{.epoch = 1, .reason = "because"}),
      one(LoadAdapter{
          .epoch = 1, .index = 1, .load_number = 2, .directory = "/a"}),
  };
}

void ReshapeFromCoordinator(std::string* input, uint64_t seed) {
  std::vector<wv::FromCoordinator> messages = ReadAll(*input);
  if (messages.empty()) return;
  std::mt19937_64 random(seed);
  const size_t at = random() % messages.size();
  switch (random() % 8) {
    case 0:
      if (messages.size() < 16) messages.push_back(messages[at]);
      break;
    case 1:
      messages.erase(messages.begin() + static_cast<int64_t>(at));
      break;
    default:
      ChangeMessage(&messages[at], random());
  }
  *input = Write(messages);
}

// --- FromWorker --------------------------------------------------------------

Outcome RunFromWorker(std::string_view input) {
  Promises promises;
  wv::FromWorker message;
  if (!message.ParseFromArray(input.data(), static_cast<int>(input.size()))) {
    return promises.Refused(InvalidArgument("not a message"));
  }
  const auto parsed = FromProto(message, kVocabSize);
  if (!parsed.ok()) return promises.Refused(parsed.status());
  const auto again = FromProto(ToProto(*parsed), kVocabSize);
  promises.Expect(again.ok() && *again == *parsed,
                  "another trip through the wall changes nothing");
  if (const auto* result = std::get_if<StepResult>(&*parsed)) {
    promises.Expect(result->tokens.size() <= kMaxStepSequences,
                    "a result is within limits");
    for (const SampledToken& token : result->tokens) {
      promises.Expect(token.token_id >= 0 && token.token_id < kVocabSize &&
                          token.logprob <= 1,
                      "tokens are of the vocabulary, with a log-probability");
    }
  } else if (const auto* failed = std::get_if<GroupFailed>(&*parsed)) {
    promises.Expect(!failed->reason.ok(), "a failure is an error");
  }
  return promises.Accepted();
}

std::vector<std::string> FromWorkerSeeds() {
  const WorkerMessage messages[] = {
      RegisterWorker{.build_id = "b",
                     .host_id = "h",
                     .host_name = "n",
                     .process_id = 5,
                     .device = "cpu",
                     .cpu_path = "avx2",
                     .num_cores = 2,
                     .num_threads = 1,
                     .memory_bytes = 1 << 20,
                     .model_directory = "/m",
                     .metrics_address = "127.0.0.1:1"},
      LoadProgress{.epoch = 1, .bytes_done = 2, .bytes_total = 3},
      GroupPrepared{.epoch = 1,
                    .endpoints = {.world = "w", .attention = "a"},
                    .numerics_id = "n",
                    .config = "hidden_size=1\n",
                    .piece_hashes = {{"a", "b"}, {"c", "d"}},
                    .weights_bytes = 5,
                    .kv_bytes = 6},
      GroupConnected{.epoch = 1},
      StepResult{
          .epoch = 1,
          .step = 2,
          .tokens = {{.token_id = 3,
                      .logprob = -0.5f,
                      .top_logprobs = {{3, -0.5f}, {4, -2}}},
                     {.token_id = 5}},
          .timings = {.total_us = 9, .communication_us = 3, .wait_us = 2}},
      GroupFailed{.epoch = 1, .reason = absl::UnavailableError("late")},
      Heartbeat{},
      AdapterLoaded{
          .epoch = 1, .index = 1, .load_number = 2, .content_hash = "h"},
  };
  std::vector<std::string> seeds;
  for (const WorkerMessage& message : messages) {
    seeds.push_back(ToProto(message).SerializeAsString());
  }
  return seeds;
}

void ReshapeFromWorker(std::string* input, uint64_t seed) {
  wv::FromWorker message;
  if (!message.ParseFromString(*input)) return;
  ChangeMessage(&message, seed);
  *input = message.SerializeAsString();
}

}  // namespace witan::fuzz

#include "proto/wire.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/bounds.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

namespace wv = worker::v1;

// --- Checks ----------------------------------------------------------------

absl::Status CheckEpoch(uint64_t epoch) {
  if (epoch > 0) return absl::OkStatus();
  return InvalidArgument("epoch is 0; epochs start at 1");
}

// A log-probability; -infinity for a token that cannot be.
absl::Status CheckLogprob(float value) {
  if (value <= 1e-3f) return absl::OkStatus();  // rounding; false for NaN
  return InvalidArgument("logprob is {}; allowed is at most 0", value);
}

template <typename T>
std::vector<T> ToVector(const google::protobuf::RepeatedField<T>& field) {
  return {field.begin(), field.end()};
}

template <typename T>
void Fill(google::protobuf::RepeatedField<T>& field,
          const std::vector<T>& values) {
  field.Add(values.begin(), values.end());
}

// --- Both directions, struct by struct ---------------------------------------

void Fill(wv::RegisterWorker& out, const RegisterWorker& in) {
  out.set_build_id(in.build_id);
  out.set_protocol_version(in.protocol_version);
  out.set_host_id(in.host_id);
  out.set_host_name(in.host_name);
  out.set_process_id(in.process_id);
  out.set_device(in.device);
  out.set_cpu_path(in.cpu_path);
  out.set_num_cores(in.num_cores);
  out.set_memory_bytes(in.memory_bytes);
  out.set_memory_is_of_host(in.memory_is_of_host);
  out.set_model_directory(in.model_directory);
  out.set_metrics_address(in.metrics_address);
}

absl::StatusOr<RegisterWorker> Read(const wv::RegisterWorker& in) {
  RETURN_IF_ERROR(CheckSize("build_id", in.build_id().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("host_id", in.host_id().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("host_name", in.host_name().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("device", in.device().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("cpu_path", in.cpu_path().size(), kMaxNameBytes));
  RETURN_IF_ERROR(
      CheckSize("model_directory", in.model_directory().size(), kMaxPathBytes));
  RETURN_IF_ERROR(
      CheckSize("metrics_address", in.metrics_address().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckRange("process_id", in.process_id(), 0, INT32_MAX));
  RETURN_IF_ERROR(CheckRange("num_cores", in.num_cores(), 0, kMaxCores));
  RETURN_IF_ERROR(
      CheckRange("memory_bytes", in.memory_bytes(), 0, kMaxMemoryBytes));
  return RegisterWorker{.build_id = in.build_id(),
                        .protocol_version = in.protocol_version(),
                        .host_id = in.host_id(),
                        .host_name = in.host_name(),
                        .process_id = in.process_id(),
                        .device = in.device(),
                        .cpu_path = in.cpu_path(),
                        .num_cores = in.num_cores(),
                        .memory_bytes = in.memory_bytes(),
                        .memory_is_of_host = in.memory_is_of_host(),
                        .model_directory = in.model_directory(),
                        .metrics_address = in.metrics_address()};
}

void Fill(wv::LoadProgress& out, const LoadProgress& in) {
  out.set_epoch(in.epoch);
  out.set_bytes_done(in.bytes_done);
  out.set_bytes_total(in.bytes_total);
}

absl::StatusOr<LoadProgress> Read(const wv::LoadProgress& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(
      CheckRange("bytes_total", in.bytes_total(), 0, kMaxMemoryBytes));
  RETURN_IF_ERROR(
      CheckRange("bytes_done", in.bytes_done(), 0, in.bytes_total()));
  return LoadProgress{.epoch = in.epoch(),
                      .bytes_done = in.bytes_done(),
                      .bytes_total = in.bytes_total()};
}

void Fill(wv::GroupEndpoints& out, const GroupEndpoints& in) {
  out.set_world(in.world);
  out.set_attention(in.attention);
  out.set_expert(in.expert);
}

absl::StatusOr<GroupEndpoints> Read(const wv::GroupEndpoints& in) {
  RETURN_IF_ERROR(
      CheckSize("endpoints.world", in.world().size(), kMaxRendezvousBytes));
  RETURN_IF_ERROR(CheckSize("endpoints.attention", in.attention().size(),
                            kMaxRendezvousBytes));
  RETURN_IF_ERROR(
      CheckSize("endpoints.expert", in.expert().size(), kMaxRendezvousBytes));
  return GroupEndpoints{
      .world = in.world(), .attention = in.attention(), .expert = in.expert()};
}

void Fill(wv::GroupPrepared& out, const GroupPrepared& in) {
  out.set_epoch(in.epoch);
  Fill(*out.mutable_endpoints(), in.endpoints);
  out.set_numerics_id(in.numerics_id);
  out.set_config(in.config);
  for (const auto& [name, hash] : in.piece_hashes) {
    (*out.mutable_piece_hashes())[name] = hash;
  }
  out.set_weights_bytes(in.weights_bytes);
  out.set_kv_bytes(in.kv_bytes);
}

absl::StatusOr<GroupPrepared> Read(const wv::GroupPrepared& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  GroupPrepared out;
  out.epoch = in.epoch();
  ASSIGN_OR_RETURN(out.endpoints, Read(in.endpoints()));
  RETURN_IF_ERROR(
      CheckSize("numerics_id", in.numerics_id().size(), kMaxNameBytes));
  out.numerics_id = in.numerics_id();
  RETURN_IF_ERROR(CheckSize("config", in.config().size(), kMaxConfigTextBytes));
  out.config = in.config();
  RETURN_IF_ERROR(
      CheckCount("piece_hashes", in.piece_hashes_size(), kMaxPieces));
  for (const auto& [name, hash] : in.piece_hashes()) {
    RETURN_IF_ERROR(
        CheckSize("a name in piece_hashes", name.size(), kMaxNameBytes));
    RETURN_IF_ERROR(
        CheckSize("a hash in piece_hashes", hash.size(), kMaxNameBytes));
    out.piece_hashes.emplace(name, hash);
  }
  RETURN_IF_ERROR(
      CheckRange("weights_bytes", in.weights_bytes(), 0, kMaxMemoryBytes));
  RETURN_IF_ERROR(CheckRange("kv_bytes", in.kv_bytes(), 0, kMaxMemoryBytes));
  out.weights_bytes = in.weights_bytes();
  out.kv_bytes = in.kv_bytes();
  return out;
}

void Fill(wv::GroupConnected& out, const GroupConnected& in) {
  out.set_epoch(in.epoch);
}

absl::StatusOr<GroupConnected> Read(const wv::GroupConnected& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  return GroupConnected{.epoch = in.epoch()};
}

void Fill(wv::GroupFailed& out, const GroupFailed& in) {
  out.set_epoch(in.epoch);
  out.set_code(static_cast<int32_t>(in.reason.code()));
  out.set_message(std::string(MessageOf(in.reason)).substr(0, kMaxReasonBytes));
}

absl::StatusOr<GroupFailed> Read(const wv::GroupFailed& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(
      CheckRange("code", in.code(), 1,
                 static_cast<int64_t>(absl::StatusCode::kUnauthenticated)));
  RETURN_IF_ERROR(CheckSize("message", in.message().size(), kMaxReasonBytes));
  return GroupFailed{
      .epoch = in.epoch(),
      .reason =
          absl::Status(static_cast<absl::StatusCode>(in.code()), in.message())};
}

void Fill(wv::Heartbeat&, const Heartbeat&) {}

absl::StatusOr<Heartbeat> Read(const wv::Heartbeat&) { return Heartbeat{}; }

void Fill(wv::StepResult& out, const StepResult& in) {
  out.set_epoch(in.epoch);
  out.set_step(in.step);
  for (const SampledToken& token : in.tokens) {
    wv::SampledToken& made = *out.add_tokens();
    made.set_token_id(token.token_id);
    made.set_logprob(token.logprob);
    for (const TokenLogprob& top : token.top_logprobs) {
      wv::TokenLogprob& entry = *made.add_top_logprobs();
      entry.set_token_id(top.token_id);
      entry.set_logprob(top.logprob);
    }
  }
  out.mutable_timings()->set_total_us(in.timings.total_us);
  out.mutable_timings()->set_communication_us(in.timings.communication_us);
  out.mutable_timings()->set_wait_us(in.timings.wait_us);
}

absl::StatusOr<StepTimings> Read(const wv::StepTimings& in) {
  RETURN_IF_ERROR(CheckRange("timings.total_us", in.total_us(), 0, kMaxStepUs));
  RETURN_IF_ERROR(CheckRange("timings.communication_us", in.communication_us(),
                             0, kMaxStepUs));
  RETURN_IF_ERROR(CheckRange("timings.wait_us", in.wait_us(), 0, kMaxStepUs));
  return StepTimings{.total_us = in.total_us(),
                     .communication_us = in.communication_us(),
                     .wait_us = in.wait_us()};
}

absl::StatusOr<StepResult> Read(const wv::StepResult& in, int64_t vocab_size) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  StepResult out;
  out.epoch = in.epoch();
  out.step = in.step();
  RETURN_IF_ERROR(CheckCount("tokens", in.tokens_size(), kMaxStepSequences));
  out.tokens.reserve(in.tokens_size());
  for (const wv::SampledToken& token : in.tokens()) {
    RETURN_IF_ERROR(
        CheckRange("tokens.token_id", token.token_id(), 0, vocab_size - 1));
    RETURN_IF_ERROR(CheckLogprob(token.logprob()));
    RETURN_IF_ERROR(CheckCount("tokens.top_logprobs", token.top_logprobs_size(),
                               kMaxTopLogprobs));
    SampledToken& made = out.tokens.emplace_back();
    made.token_id = token.token_id();
    made.logprob = token.logprob();
    for (const wv::TokenLogprob& top : token.top_logprobs()) {
      RETURN_IF_ERROR(CheckRange("tokens.top_logprobs.token_id", top.token_id(),
                                 0, vocab_size - 1));
      RETURN_IF_ERROR(CheckLogprob(top.logprob()));
      made.top_logprobs.push_back(
          {.token_id = top.token_id(), .logprob = top.logprob()});
    }
  }
  ASSIGN_OR_RETURN(out.timings, Read(in.timings()));
  return out;
}

void Fill(wv::WorkerAccepted& out, const WorkerAccepted& in) {
  out.set_worker_id(in.worker_id);
}

absl::StatusOr<WorkerAccepted> Read(const wv::WorkerAccepted& in) {
  return WorkerAccepted{.worker_id = in.worker_id()};
}

void Fill(wv::PrepareGroup& out, const PrepareGroup& in) {
  out.set_epoch(in.epoch);
  out.set_rank(in.rank);
  out.set_tp(in.tp);
  out.set_ep(in.ep);
  out.set_model_directory(in.model_directory);
  out.set_transport(in.transport == Transport::kTcp
                        ? wv::TRANSPORT_TCP
                        : wv::TRANSPORT_SHARED_MEMORY);
  out.set_num_threads(in.num_threads);
  out.set_max_context_tokens(in.max_context_tokens);
  out.set_max_step_tokens(in.max_step_tokens);
  out.set_max_sequences(in.max_sequences);
  out.set_num_blocks(in.num_blocks);
  out.set_one_shot_max_bytes(in.one_shot_max_bytes);
}

absl::StatusOr<PrepareGroup> Read(const wv::PrepareGroup& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckRange("tp", in.tp(), 1, kNumLeaves));
  RETURN_IF_ERROR(CheckRange("ep", in.ep(), 1, kNumLeaves));
  RETURN_IF_ERROR(CheckRange("rank", in.rank(), 0, kMaxRanks - 1));
  RETURN_IF_ERROR(
      CheckSize("model_directory", in.model_directory().size(), kMaxPathBytes));
  if (in.transport() != wv::TRANSPORT_SHARED_MEMORY &&
      in.transport() != wv::TRANSPORT_TCP) {
    return InvalidArgument("transport is {}; allowed is {} or {}",
                           static_cast<int>(in.transport()),
                           static_cast<int>(wv::TRANSPORT_SHARED_MEMORY),
                           static_cast<int>(wv::TRANSPORT_TCP));
  }
  RETURN_IF_ERROR(
      CheckRange("num_threads", in.num_threads(), 1, kMaxThreadsPerRank));
  RETURN_IF_ERROR(CheckRange("max_context_tokens", in.max_context_tokens(), 1,
                             kMaxContextTokens));
  RETURN_IF_ERROR(
      CheckRange("max_step_tokens", in.max_step_tokens(), 1, kMaxStepTokens));
  RETURN_IF_ERROR(
      CheckRange("max_sequences", in.max_sequences(), 1, kMaxStepSequences));
  RETURN_IF_ERROR(CheckRange("num_blocks", in.num_blocks(), 2, kMaxBlocks));
  RETURN_IF_ERROR(CheckRange("one_shot_max_bytes", in.one_shot_max_bytes(), 0,
                             kMaxMemoryBytes));
  return PrepareGroup{.epoch = in.epoch(),
                      .rank = in.rank(),
                      .tp = in.tp(),
                      .ep = in.ep(),
                      .model_directory = in.model_directory(),
                      .transport = in.transport() == wv::TRANSPORT_TCP
                                       ? Transport::kTcp
                                       : Transport::kSharedMemory,
                      .num_threads = in.num_threads(),
                      .max_context_tokens = in.max_context_tokens(),
                      .max_step_tokens = in.max_step_tokens(),
                      .max_sequences = in.max_sequences(),
                      .num_blocks = in.num_blocks(),
                      .one_shot_max_bytes = in.one_shot_max_bytes()};
}

void Fill(wv::ConnectGroup& out, const ConnectGroup& in) {
  out.set_epoch(in.epoch);
  for (const GroupEndpoints& endpoints : in.endpoints) {
    Fill(*out.add_endpoints(), endpoints);
  }
}

absl::StatusOr<ConnectGroup> Read(const wv::ConnectGroup& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckCount("endpoints", in.endpoints_size(), kMaxRanks));
  ConnectGroup out;
  out.epoch = in.epoch();
  for (const wv::GroupEndpoints& endpoints : in.endpoints()) {
    ASSIGN_OR_RETURN(out.endpoints.emplace_back(), Read(endpoints));
  }
  return out;
}

void Fill(wv::AbortGroup& out, const AbortGroup& in) {
  out.set_epoch(in.epoch);
  out.set_reason(in.reason.substr(0, kMaxReasonBytes));
}

absl::StatusOr<AbortGroup> Read(const wv::AbortGroup& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckSize("reason", in.reason().size(), kMaxReasonBytes));
  return AbortGroup{.epoch = in.epoch(), .reason = in.reason()};
}

// --- Step plans --------------------------------------------------------------

void Fill(wv::SamplingParams& out, const SamplingParams& in) {
  out.set_temperature(in.temperature);
  out.set_top_k(in.top_k);
  out.set_top_p(in.top_p);
  out.set_min_p(in.min_p);
  out.set_repetition_penalty(in.repetition_penalty);
  out.set_presence_penalty(in.presence_penalty);
  out.set_frequency_penalty(in.frequency_penalty);
  for (const LogitBias& bias : in.logit_bias) {
    wv::LogitBias& entry = *out.add_logit_bias();
    entry.set_token_id(bias.token_id);
    entry.set_bias(bias.bias);
  }
  out.set_seed(in.seed);
  out.set_num_top_logprobs(in.num_top_logprobs);
}

absl::StatusOr<SamplingParams> Read(const wv::SamplingParams& in) {
  RETURN_IF_ERROR(
      CheckReal("sampling.temperature", in.temperature(), 0, kMaxTemperature));
  RETURN_IF_ERROR(CheckRange("sampling.top_k", in.top_k(), 0, kMaxVocabSize));
  RETURN_IF_ERROR(CheckReal("sampling.top_p", in.top_p(), kMinTopP, 1));
  RETURN_IF_ERROR(CheckReal("sampling.min_p", in.min_p(), 0, 1));
  RETURN_IF_ERROR(CheckReal("sampling.repetition_penalty",
                            in.repetition_penalty(), kMinRepetitionPenalty,
                            kMaxPenalty));
  RETURN_IF_ERROR(CheckReal("sampling.presence_penalty", in.presence_penalty(),
                            -kMaxPenalty, kMaxPenalty));
  RETURN_IF_ERROR(CheckReal("sampling.frequency_penalty",
                            in.frequency_penalty(), -kMaxPenalty, kMaxPenalty));
  RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", in.logit_bias_size(), kMaxLogitBias));
  RETURN_IF_ERROR(CheckRange("sampling.num_top_logprobs", in.num_top_logprobs(),
                             -1, kMaxTopLogprobs));
  SamplingParams out{.temperature = in.temperature(),
                     .top_k = in.top_k(),
                     .top_p = in.top_p(),
                     .min_p = in.min_p(),
                     .repetition_penalty = in.repetition_penalty(),
                     .presence_penalty = in.presence_penalty(),
                     .frequency_penalty = in.frequency_penalty(),
                     .logit_bias = {},
                     .seed = in.seed(),
                     .num_top_logprobs = in.num_top_logprobs()};
  int64_t previous = -1;
  for (const wv::LogitBias& entry : in.logit_bias()) {
    RETURN_IF_ERROR(CheckRange("sampling.logit_bias.token_id", entry.token_id(),
                               previous + 1, kMaxVocabSize - 1));
    RETURN_IF_ERROR(CheckReal("sampling.logit_bias.bias", entry.bias(),
                              -kMaxAbsoluteLogitBias, kMaxAbsoluteLogitBias));
    previous = entry.token_id();
    out.logit_bias.push_back(
        {.token_id = entry.token_id(), .bias = entry.bias()});
  }
  return out;
}

void Fill(wv::StepPlan& out, const StepPlan& in) {
  out.set_epoch(in.epoch);
  out.set_step(in.step);
  for (const SlotStart& start : in.slot_starts) {
    wv::SlotStart& entry = *out.add_slot_starts();
    entry.set_slot(start.slot);
    entry.set_choice(start.choice);
    Fill(*entry.mutable_sampling(), start.sampling);
    Fill(*entry.mutable_history(), start.history);
    entry.set_num_prompt_tokens(start.num_prompt_tokens);
  }
  Fill(*out.mutable_token_ids(), in.token_ids);
  Fill(*out.mutable_row_begin(), in.row_begin);
  Fill(*out.mutable_slots(), in.slots);
  Fill(*out.mutable_first_positions(), in.first_positions);
  out.set_samples(in.samples.data(), in.samples.size());
  Fill(*out.mutable_new_block_begin(), in.new_block_begin);
  Fill(*out.mutable_new_block_ids(), in.new_block_ids);
}

absl::StatusOr<SlotStart> Read(const wv::SlotStart& in) {
  RETURN_IF_ERROR(
      CheckRange("slot_starts.slot", in.slot(), 0, kMaxStepSequences - 1));
  RETURN_IF_ERROR(
      CheckRange("slot_starts.choice", in.choice(), 0, kMaxChoices - 1));
  RETURN_IF_ERROR(
      CheckCount("slot_starts.history", in.history_size(), kMaxContextTokens));
  RETURN_IF_ERROR(CheckRange("slot_starts.num_prompt_tokens",
                             in.num_prompt_tokens(), 0, kMaxContextTokens));
  SlotStart out;
  out.slot = in.slot();
  out.choice = in.choice();
  ASSIGN_OR_RETURN(out.sampling, Read(in.sampling()));
  out.history = ToVector(in.history());
  out.num_prompt_tokens = in.num_prompt_tokens();
  if (!out.sampling.uses_penalties() && !out.history.empty()) {
    return InvalidArgument(
        "slot_starts.history has {} tokens for a sequence without penalties",
        out.history.size());
  }
  if (out.sampling.uses_penalties()) {
    RETURN_IF_ERROR(CheckRange("slot_starts.num_prompt_tokens",
                               out.num_prompt_tokens, 0, in.history_size()));
  }
  return out;
}

absl::Status CheckDistinct(const char* field, std::vector<int32_t> values) {
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  if (twice == values.end()) return absl::OkStatus();
  return InvalidArgument("{} has {} twice", field, *twice);
}

// offsets[0] = 0, ascending, offsets[num_parts] = size; each part holds at
// least min_part entries.
absl::Status CheckRagged(const char* field, const std::vector<int32_t>& offsets,
                         int64_t num_parts, int64_t size, int64_t min_part) {
  if (static_cast<int64_t>(offsets.size()) != num_parts + 1) {
    return InvalidArgument("{} has {} entries for {} sequences", field,
                           offsets.size(), num_parts);
  }
  if (offsets.front() != 0 || offsets.back() != size) {
    return InvalidArgument("{} runs from {} to {} over {} entries", field,
                           offsets.front(), offsets.back(), size);
  }
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (int64_t{offsets[i]} - offsets[i - 1] < min_part) {
      return InvalidArgument("{}[{}] is {} after {}; each part has at least {}",
                             field, i, offsets[i], offsets[i - 1], min_part);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStepPlan(const StepPlan& plan) {
  const int64_t num_sequences = static_cast<int64_t>(plan.slots.size());
  const int64_t num_rows = static_cast<int64_t>(plan.token_ids.size());
  if (plan.step == 0) return InvalidArgument("step is 0; steps start at 1");
  RETURN_IF_ERROR(CheckRange("number of rows", num_rows, 1, kMaxStepTokens));
  RETURN_IF_ERROR(CheckRagged("row_begin", plan.row_begin, num_sequences,
                              num_rows, /*min_part=*/1));
  RETURN_IF_ERROR(CheckRagged("new_block_begin", plan.new_block_begin,
                              num_sequences,
                              static_cast<int64_t>(plan.new_block_ids.size()),
                              /*min_part=*/0));
  if (static_cast<int64_t>(plan.first_positions.size()) != num_sequences ||
      static_cast<int64_t>(plan.samples.size()) != num_sequences) {
    return InvalidArgument(
        "first_positions has {} and samples {} entries for {} sequences",
        plan.first_positions.size(), plan.samples.size(), num_sequences);
  }
  for (int64_t s = 0; s < num_sequences; ++s) {
    RETURN_IF_ERROR(
        CheckRange("slots", plan.slots[s], 0, kMaxStepSequences - 1));
    RETURN_IF_ERROR(CheckRange("samples", plan.samples[s], 0, 1));
    const int64_t rows = plan.row_begin[s + 1] - plan.row_begin[s];
    RETURN_IF_ERROR(CheckRange("first_positions", plan.first_positions[s], 0,
                               kMaxContextTokens - rows));
  }
  RETURN_IF_ERROR(CheckDistinct("slots", plan.slots));
  for (const TokenId token : plan.token_ids) {
    RETURN_IF_ERROR(CheckRange("token_ids", token, kTokenOfPreviousStep,
                               kMaxVocabSize - 1));
  }
  for (const int32_t block : plan.new_block_ids) {
    RETURN_IF_ERROR(
        CheckRange("new_block_ids", block, kNullBlock + 1, kMaxBlocks - 1));
  }
  std::vector<int32_t> started;
  for (const SlotStart& start : plan.slot_starts) {
    started.push_back(start.slot);
    for (const TokenId token : start.history) {
      RETURN_IF_ERROR(
          CheckRange("slot_starts.history", token, 0, kMaxVocabSize - 1));
    }
  }
  return CheckDistinct("slot_starts", std::move(started));
}

absl::StatusOr<StepPlan> Read(const wv::StepPlan& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(
      CheckCount("slot_starts", in.slot_starts_size(), kMaxStepSequences));
  RETURN_IF_ERROR(CheckCount("token_ids", in.token_ids_size(), kMaxStepTokens));
  RETURN_IF_ERROR(CheckCount("slots", in.slots_size(), kMaxStepSequences));
  RETURN_IF_ERROR(
      CheckCount("new_block_ids", in.new_block_ids_size(), kMaxBlocks));
  StepPlan out;
  out.epoch = in.epoch();
  out.step = in.step();
  for (const wv::SlotStart& start : in.slot_starts()) {
    ASSIGN_OR_RETURN(out.slot_starts.emplace_back(), Read(start));
  }
  out.token_ids = ToVector(in.token_ids());
  out.row_begin = ToVector(in.row_begin());
  out.slots = ToVector(in.slots());
  out.first_positions = ToVector(in.first_positions());
  out.samples.assign(in.samples().begin(), in.samples().end());
  out.new_block_begin = ToVector(in.new_block_begin());
  out.new_block_ids = ToVector(in.new_block_ids());
  RETURN_IF_ERROR(CheckStepPlan(out));
  return out;
}

// --- Messages ----------------------------------------------------------------

// Assigns a struct or its error, with the message's name before it.
template <typename Variant, typename T>
absl::StatusOr<Variant> Named(const char* name, absl::StatusOr<T> message) {
  if (!message.ok()) return Annotate(message.status(), name);
  return Variant(*std::move(message));
}

}  // namespace

worker::v1::FromWorker ToProto(const WorkerMessage& message) {
  wv::FromWorker out;
  struct Filler {
    wv::FromWorker& out;
    void operator()(const RegisterWorker& m) {
      Fill(*out.mutable_register_worker(), m);
    }
    void operator()(const LoadProgress& m) {
      Fill(*out.mutable_load_progress(), m);
    }
    void operator()(const GroupPrepared& m) {
      Fill(*out.mutable_group_prepared(), m);
    }
    void operator()(const GroupConnected& m) {
      Fill(*out.mutable_group_connected(), m);
    }
    void operator()(const StepResult& m) {
      Fill(*out.mutable_step_result(), m);
    }
    void operator()(const GroupFailed& m) {
      Fill(*out.mutable_group_failed(), m);
    }
    void operator()(const Heartbeat& m) { Fill(*out.mutable_heartbeat(), m); }
  };
  std::visit(Filler{out}, message);
  return out;
}

worker::v1::FromCoordinator ToProto(const CoordinatorMessage& message) {
  wv::FromCoordinator out;
  struct Filler {
    wv::FromCoordinator& out;
    void operator()(const WorkerAccepted& m) {
      Fill(*out.mutable_worker_accepted(), m);
    }
    void operator()(const PrepareGroup& m) {
      Fill(*out.mutable_prepare_group(), m);
    }
    void operator()(const ConnectGroup& m) {
      Fill(*out.mutable_connect_group(), m);
    }
    void operator()(const StepPlan& m) { Fill(*out.mutable_step_plan(), m); }
    void operator()(const AbortGroup& m) {
      Fill(*out.mutable_abort_group(), m);
    }
  };
  std::visit(Filler{out}, message);
  return out;
}

absl::StatusOr<WorkerMessage> FromProto(const worker::v1::FromWorker& message,
                                        int64_t vocab_size) {
  switch (message.message_case()) {
    case wv::FromWorker::kRegisterWorker:
      return Named<WorkerMessage>("RegisterWorker",
                                  Read(message.register_worker()));
    case wv::FromWorker::kLoadProgress:
      return Named<WorkerMessage>("LoadProgress",
                                  Read(message.load_progress()));
    case wv::FromWorker::kGroupPrepared:
      return Named<WorkerMessage>("GroupPrepared",
                                  Read(message.group_prepared()));
    case wv::FromWorker::kGroupConnected:
      return Named<WorkerMessage>("GroupConnected",
                                  Read(message.group_connected()));
    case wv::FromWorker::kStepResult:
      return Named<WorkerMessage>("StepResult",
                                  Read(message.step_result(), vocab_size));
    case wv::FromWorker::kGroupFailed:
      return Named<WorkerMessage>("GroupFailed", Read(message.group_failed()));
    case wv::FromWorker::kHeartbeat:
      return Named<WorkerMessage>("Heartbeat", Read(message.heartbeat()));
    case wv::FromWorker::MESSAGE_NOT_SET:
      break;
  }
  return InvalidArgument("a worker sent a message without content");
}

absl::StatusOr<CoordinatorMessage> FromProto(
    const worker::v1::FromCoordinator& message) {
  switch (message.message_case()) {
    case wv::FromCoordinator::kWorkerAccepted:
      return Named<CoordinatorMessage>("WorkerAccepted",
                                       Read(message.worker_accepted()));
    case wv::FromCoordinator::kPrepareGroup:
      return Named<CoordinatorMessage>("PrepareGroup",
                                       Read(message.prepare_group()));
    case wv::FromCoordinator::kConnectGroup:
      return Named<CoordinatorMessage>("ConnectGroup",
                                       Read(message.connect_group()));
    case wv::FromCoordinator::kStepPlan:
      return Named<CoordinatorMessage>("StepPlan", Read(message.step_plan()));
    case wv::FromCoordinator::kAbortGroup:
      return Named<CoordinatorMessage>("AbortGroup",
                                       Read(message.abort_group()));
    case wv::FromCoordinator::MESSAGE_NOT_SET:
      break;
  }
  return InvalidArgument("the coordinator sent a message without content");
}

}  // namespace witan

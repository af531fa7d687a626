#include "tests/testing/fake_worker_group.h"

#include <algorithm>
#include <set>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

// SplitMix64's finaliser: every input bit reaches every output bit.
uint64_t Mix(uint64_t hash, uint64_t value) {
  uint64_t z = hash + 0x9e3779b97f4a7c15 + value * 0xd1342543de82ef95;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

SampledToken FakeNextToken(const std::vector<TokenId>& history,
                           const SamplingParams& sampling, int32_t choice,
                           int64_t vocab_size) {
  uint64_t hash = Mix(sampling.seed, static_cast<uint64_t>(choice));
  for (const TokenId token : history) {
    hash = Mix(hash, static_cast<uint64_t>(token));
  }
  SampledToken sampled;
  sampled.token_id =
      static_cast<TokenId>(hash % static_cast<uint64_t>(vocab_size));
  if (sampling.num_top_logprobs >= 0) {
    sampled.logprob = -static_cast<float>(hash >> 40) / (1 << 24);
  }
  return sampled;
}

SampledToken FakeScore(const std::vector<TokenId>& history, TokenId token_id) {
  uint64_t hash = Mix(777, static_cast<uint64_t>(token_id));
  for (const TokenId token : history) {
    hash = Mix(hash, static_cast<uint64_t>(token));
  }
  return {.token_id = token_id,
          .logprob = -static_cast<float>(hash >> 40) / (1 << 24)};
}

std::optional<TokenId> FakeForcedToken(const std::vector<TokenId>& history,
                                       int64_t num_prompt_tokens,
                                       int64_t vocab_size) {
  // Every eighth token or so, the prompt's last one included, is followed by up
  // to four that it names; the first of them that is still going on counts.
  const int64_t size = static_cast<int64_t>(history.size());
  for (int64_t distance = 4; distance >= 1; --distance) {
    const int64_t index = size - distance;
    if (index < num_prompt_tokens - 1) continue;
    const uint64_t hash = Mix(12345, static_cast<uint64_t>(history[index]));
    const int64_t length = hash % 8 == 0 ? 1 + hash / 8 % 4 : 0;
    if (distance > length) continue;
    return static_cast<TokenId>(Mix(hash, static_cast<uint64_t>(distance)) %
                                static_cast<uint64_t>(vocab_size));
  }
  return std::nullopt;
}

FakeRank::FakeRank(Epoch epoch, int64_t max_step_tokens, int64_t max_sequences,
                   int64_t num_blocks, int64_t vocab_size)
    : epoch_(epoch),
      max_step_tokens_(max_step_tokens),
      vocab_size_(vocab_size),
      slots_(max_sequences),
      blocks_(num_blocks) {
  for (Block& block : blocks_) block.tokens.assign(kBlockTokens, -1);
}

absl::StatusOr<StepResult> FakeRank::Run(const StepPlan& plan,
                                         StepNumber applied) {
  RETURN_IF_ERROR(CheckShape(plan));
  last_step_ = plan.step;
  for (const SlotStart& start : plan.slot_starts) {
    RETURN_IF_ERROR(StartSlot(start, applied));
  }
  StepResult result;
  result.epoch = epoch_;
  result.step = plan.step;
  for (int s = 0; s < plan.num_sequences(); ++s) {
    RETURN_IF_ERROR(
        Annotate(RunSequence(plan, s, applied, result),
                 fmt::format("step {}, slot {}", plan.step, plan.slots[s])));
  }
  for (const SlotStart& start : plan.slot_starts) {
    if (slots_[start.slot].num_positions == 0) {
      return Internal("step {} starts slot {} without rows for it", plan.step,
                      start.slot);
    }
  }
  return result;
}

absl::Status FakeRank::CheckShape(const StepPlan& plan) const {
  if (plan.epoch != epoch_) return Internal("plan of epoch {}", plan.epoch);
  if (plan.step != last_step_ + 1) {
    return Internal("step {} after step {}", plan.step, last_step_);
  }
  const size_t num_sequences = plan.slots.size();
  if (num_sequences == 0 || plan.row_begin.size() != num_sequences + 1 ||
      plan.first_positions.size() != num_sequences ||
      plan.samples.size() != num_sequences ||
      plan.new_block_begin.size() != num_sequences + 1) {
    return Internal("arrays of step {} do not fit together", plan.step);
  }
  if (plan.row_begin.front() != 0 || plan.row_begin.back() != plan.num_rows() ||
      plan.new_block_begin.front() != 0 ||
      plan.new_block_begin.back() !=
          static_cast<int32_t>(plan.new_block_ids.size())) {
    return Internal("ragged arrays of step {} do not end", plan.step);
  }
  if (plan.num_rows() > max_step_tokens_) {
    return Internal("step {} has {} rows", plan.step, plan.num_rows());
  }
  std::set<int32_t> seen;
  for (const int32_t slot : plan.slots) {
    if (slot < 0 || slot >= static_cast<int32_t>(slots_.size())) {
      return Internal("there is no slot {}", slot);
    }
    if (!seen.insert(slot).second) return Internal("slot {} twice", slot);
  }
  std::set<int32_t> started;
  for (const SlotStart& start : plan.slot_starts) {
    if (!seen.contains(start.slot)) {
      return Internal("slot {} starts without rows", start.slot);
    }
    if (!started.insert(start.slot).second) {
      return Internal("slot {} starts twice", start.slot);
    }
  }
  return absl::OkStatus();
}

absl::Status FakeRank::StartSlot(const SlotStart& start, StepNumber applied) {
  Slot& slot = slots_[start.slot];
  if (slot.last_step > applied) {
    return Internal(
        "slot {} changes hands at step {}, and step {} still uses "
        "it",
        start.slot, last_step_, slot.last_step);
  }
  if (start.history.empty() == start.sampling.uses_history()) {
    return Internal("slot {} starts with {} tokens of history", start.slot,
                    start.history.size());
  }
  if (start.num_cached_tokens < 0 ||
      start.num_cached_tokens % kBlockTokens != 0) {
    return Internal("slot {} starts with {} cached tokens", start.slot,
                    start.num_cached_tokens);
  }
  for (const int32_t block : slot.blocks) {
    blocks_[block].users.erase(start.slot);
  }
  slot = Slot();
  slot.in_use = true;
  slot.start = start;
  slot.num_positions = start.num_cached_tokens;
  slot.penalty_tokens = start.history;
  return absl::OkStatus();
}

absl::Status FakeRank::AppendBlocks(const StepPlan& plan, int sequence,
                                    StepNumber applied) {
  const int32_t slot_index = plan.slots[sequence];
  for (int32_t i = plan.new_block_begin[sequence];
       i < plan.new_block_begin[sequence + 1]; ++i) {
    const int32_t id = plan.new_block_ids[i];
    if (id <= kNullBlock || id >= static_cast<int32_t>(blocks_.size())) {
      return Internal("there is no block {}", id);
    }
    RETURN_IF_ERROR(AppendBlock(slot_index, id, applied));
  }
  return absl::OkStatus();
}

absl::Status FakeRank::AppendBlock(int32_t slot_index, int32_t id,
                                   StepNumber applied) {
  Slot& slot = slots_[slot_index];
  Block& block = blocks_[id];
  if (block.users.contains(slot_index)) return Internal("block {} twice", id);
  const int64_t begin = static_cast<int64_t>(slot.blocks.size()) * kBlockTokens;
  if (begin < slot.start.num_cached_tokens) {
    if (!block.is_full()) return Internal("cached block {} is not full", id);
    if (block.last_written > applied) {
      return Internal("block {} is shared before step {} was taken", id,
                      block.last_written);
    }
    ++num_shared_blocks_;
  } else {
    if (block.last_step > applied) {
      return Internal("block {} changes hands, and step {} still uses it", id,
                      block.last_step);
    }
    // Its former users must have ended; they have to start anew before they
    // run.
    for (const int32_t user : block.users) slots_[user].lost_a_block = true;
    block.users.clear();
    block.tokens.assign(kBlockTokens, -1);
  }
  block.users.insert(slot_index);
  slot.blocks.push_back(id);
  return absl::OkStatus();
}

absl::StatusOr<TokenId> FakeRank::TokenOfRow(const Slot& slot,
                                             const StepPlan& plan, int row) {
  const TokenId token = plan.token_ids[row];
  if (token == kTokenOfPreviousStep) {
    if (slot.sampled_in_step == 0 || slot.sampled_in_step + 1 != plan.step) {
      return Internal(
          "row {} wants the token of the step before, which did "
          "not sample it",
          row);
    }
    return slot.last_sampled;
  }
  if (token < 0 || token >= vocab_size_) return Internal("token {}", token);
  // A wrong one would show in the tokens that follow it.
  if (slot.sampled_in_step != 0 && token != slot.last_sampled) {
    ++num_forced_rows_;
  }
  return token;
}

absl::Status FakeRank::RunSequence(const StepPlan& plan, int sequence,
                                   StepNumber applied, StepResult& result) {
  Slot& slot = slots_[plan.slots[sequence]];
  if (!slot.in_use) return Internal("the slot was never started");
  if (slot.lost_a_block) return Internal("one of its blocks was given away");
  RETURN_IF_ERROR(AppendBlocks(plan, sequence, applied));
  if (plan.first_positions[sequence] != slot.num_positions) {
    return Internal("rows begin at position {} after {} positions",
                    plan.first_positions[sequence], slot.num_positions);
  }
  const int begin = plan.row_begin[sequence];
  const int end = plan.row_begin[sequence + 1];
  if (end <= begin) return Internal("no rows");
  if (slot.sampled_in_step != 0 && end != begin + 1) {
    return Internal("{} rows after sampling", end - begin);
  }
  for (int row = begin; row < end; ++row) {
    ASSIGN_OR_RETURN(const TokenId token, TokenOfRow(slot, plan, row));
    const int64_t position = slot.num_positions++;
    if (slot.start.sampling.uses_history() &&
        position >= static_cast<int64_t>(slot.start.history.size())) {
      slot.penalty_tokens.push_back(token);
    }
    const size_t index = position / kBlockTokens;
    if (index >= slot.blocks.size()) {
      return Internal("position {} has no block", position);
    }
    Block& block = blocks_[slot.blocks[index]];
    if (block.users.size() != 1) {
      return Internal("position {} is in block {}, which others have too",
                      position, slot.blocks[index]);
    }
    block.tokens[position % kBlockTokens] = token;
    block.last_written = plan.step;
  }
  slot.last_step = plan.step;
  for (const int32_t block : slot.blocks) blocks_[block].last_step = plan.step;
  RETURN_IF_ERROR(ScoreRows(plan, sequence, result));
  if (plan.samples[sequence] == 0) return absl::OkStatus();
  const std::vector<TokenId> history = ReadHistory(slot, slot.num_positions);
  if (slot.start.sampling.uses_history() && slot.penalty_tokens != history) {
    return Internal("penalties count other tokens than the cache holds");
  }
  const SampledToken sampled = FakeNextToken(history, slot.start.sampling,
                                             slot.start.choice, vocab_size_);
  slot.sampled_in_step = plan.step;
  slot.last_sampled = sampled.token_id;
  result.tokens.push_back(sampled);
  return absl::OkStatus();
}

absl::Status FakeRank::ScoreRows(const StepPlan& plan, int sequence,
                                 StepResult& result) const {
  const Slot& slot = slots_[plan.slots[sequence]];
  for (size_t i = 0; i < plan.scored_rows.size(); ++i) {
    const int32_t row = plan.scored_rows[i];
    if (row < plan.row_begin[sequence]) continue;
    if (row >= plan.row_begin[sequence + 1]) break;
    if (slot.start.sampling.num_prompt_logprobs < 0) {
      return Internal("row {} is scored, and nobody asked for it", row);
    }
    if (i > 0 && plan.scored_rows[i - 1] >= row) {
      return Internal("row {} is scored after row {}", row,
                      plan.scored_rows[i - 1]);
    }
    const int64_t position = plan.first_positions[sequence] + row -
                             int64_t{plan.row_begin[sequence]};
    if (position + 1 >= slot.start.num_prompt_tokens) {
      return Internal("row {} is scored, and no token of the prompt follows",
                      row);
    }
    result.scores.push_back(
        FakeScore(ReadHistory(slot, position + 1), plan.scored_token_ids[i]));
  }
  return absl::OkStatus();
}

std::vector<TokenId> FakeRank::ReadHistory(const Slot& slot,
                                           int64_t num_positions) const {
  std::vector<TokenId> history(num_positions);
  for (int64_t position = 0; position < num_positions; ++position) {
    history[position] = blocks_[slot.blocks[position / kBlockTokens]]
                            .tokens[position % kBlockTokens];
  }
  return history;
}

// --- FakeWorker -------------------------------------------------------------

FakeWorker::FakeWorker(FakeWorkerOptions worker_options)
    : options(std::move(worker_options)) {}

std::vector<WorkerMessage> FakeWorker::OnMessage(
    const CoordinatorMessage& message) {
  if (const auto* accepted = std::get_if<WorkerAccepted>(&message)) {
    worker_id = accepted->worker_id;
  } else if (const auto* prepare = std::get_if<PrepareGroup>(&message)) {
    return Prepare(*prepare);
  } else if (const auto* connect = std::get_if<ConnectGroup>(&message)) {
    if (group && connect->epoch == group->epoch && !options.silent_on_connect) {
      return {GroupConnected{connect->epoch}};
    }
  } else if (const auto* plan = std::get_if<StepPlan>(&message)) {
    if (group && plan->epoch == group->epoch && !options.silent_on_steps) {
      return Run(*plan);
    }
  } else if (const auto* load = std::get_if<LoadAdapter>(&message)) {
    if (!group || load->epoch != group->epoch) return {};
    if (!options.silent_on_adapters) return {Load(*load)};
    held_loads.push_back(*load);
  } else if (const auto* abort = std::get_if<AbortGroup>(&message)) {
    aborts.push_back(*abort);
    if (group && abort->epoch == group->epoch) group.reset();
  }
  return {};
}

AdapterLoaded FakeWorker::Load(const LoadAdapter& load) {
  ++num_loads;
  AdapterLoaded answer{.epoch = load.epoch,
                       .index = load.index,
                       .load_number = load.load_number};
  adapters.erase(load.index);
  if (load.directory.empty()) return answer;
  if (options.adapter_failure) {
    answer.status = *options.adapter_failure;
    return answer;
  }
  adapters[load.index] = load.directory;
  answer.content_hash = options.adapter_hash;
  return answer;
}

std::vector<WorkerMessage> FakeWorker::Prepare(const PrepareGroup& prepare) {
  group = prepare;
  adapters.clear();
  rank_.emplace(prepare.epoch, prepare.max_step_tokens, prepare.max_sequences,
                prepare.num_blocks, options.vocab_size);
  if (options.load_failure) {
    return {GroupFailed{prepare.epoch, *options.load_failure}};
  }
  if (options.silent_on_prepare) return {};
  GroupPrepared prepared;
  prepared.epoch = prepare.epoch;
  prepared.endpoints.world = fmt::format("world of {}", prepare.rank);
  prepared.numerics_id = options.numerics_id;
  prepared.config = options.config;
  prepared.piece_hashes = options.piece_hashes.at(prepare.rank);
  prepared.weights_bytes = 1000;
  prepared.kv_bytes = 100 * prepare.num_blocks;
  return {LoadProgress{prepare.epoch, 500, 1000},
          LoadProgress{prepare.epoch, 1000, 1000}, prepared};
}

std::vector<WorkerMessage> FakeWorker::Run(const StepPlan& plan) {
  // How far the coordinator has come is not known here.
  absl::StatusOr<StepResult> result = rank_->Run(plan, plan.step - 1);
  if (!result.ok()) {
    if (violation.ok()) violation = result.status();
    return {GroupFailed{plan.epoch, result.status()}};
  }
  ++num_steps;
  for (const SlotStart& start : plan.slot_starts) {
    adapter_of_last_start = start.adapter;
  }
  if (plan.step == 1 && !result->tokens.empty()) {
    result->tokens[0].token_id = static_cast<TokenId>(
        (result->tokens[0].token_id + options.known_answer_perturbation) %
        options.vocab_size);
  }
  if (group->rank != 0) {
    result->tokens.clear();
    result->scores.clear();
  }
  if (plan.step == options.wrong_step_number_at) ++result->step;
  return {*std::move(result)};
}

// --- FakeWorkerGroup --------------------------------------------------------

WorkerId FakeWorkerGroup::Connect(const FakeWorkerOptions& options) {
  const WorkerId id = next_worker_++;
  const auto it = links_.emplace(id, Link{FakeWorker(options), {}, {}}).first;
  it->second.from_worker.push_back(it->second.worker.Hello());
  return id;
}

void FakeWorkerGroup::Disconnect(WorkerId worker, const std::string& cause,
                                 Micros now) {
  TakeOutputs();
  links_.erase(worker);
  replica_.OnClosed(worker, cause, now);
}

void FakeWorkerGroup::TakeOutputs() {
  for (ReplicaOutput& output : replica_.TakeOutputs()) {
    if (const auto* close = std::get_if<CloseWorker>(&output)) {
      closed_[close->worker] = close->reason;
      links_.erase(close->worker);
      continue;
    }
    const SendMessage& send = std::get<SendMessage>(output);
    for (const WorkerId worker : send.workers) {
      const auto it = links_.find(worker);
      if (it != links_.end()) it->second.to_worker.push_back(send.message);
    }
  }
}

bool FakeWorkerGroup::DeliverOne(uint64_t pick, Micros now) {
  TakeOutputs();
  std::vector<std::pair<WorkerId, bool>> queues;  // worker, to it
  for (const auto& [id, link] : links_) {
    if (!link.to_worker.empty()) queues.emplace_back(id, true);
    if (!link.from_worker.empty()) queues.emplace_back(id, false);
  }
  if (queues.empty()) return false;
  const auto [id, to_worker] = queues[pick % queues.size()];
  Link& link = links_.at(id);
  if (to_worker) {
    const CoordinatorMessage message = std::move(link.to_worker.front());
    link.to_worker.pop_front();
    for (WorkerMessage& answer : link.worker.OnMessage(message)) {
      link.from_worker.push_back(std::move(answer));
    }
    if (violation_.ok()) violation_ = link.worker.violation;
    return true;
  }
  WorkerMessage message = std::move(link.from_worker.front());
  link.from_worker.pop_front();
  replica_.OnMessage(id, std::move(message), now);
  TakeOutputs();
  return true;
}

void FakeWorkerGroup::Settle(Micros now) {
  do {
    replica_.Tick(now);
  } while (DeliverOne(0, now));
}

bool FakeWorkerGroup::SettleUntil(ReplicaState state, Micros now) {
  do {
    replica_.Tick(now);
    if (replica_.state() == state) return true;
  } while (DeliverOne(0, now));
  return false;
}

std::vector<WorkerId> FakeWorkerGroup::workers() const {
  std::vector<WorkerId> ids;
  for (const auto& [id, link] : links_) ids.push_back(id);
  return ids;
}

absl::Status FakeWorkerGroup::closed(WorkerId worker) const {
  const auto it = closed_.find(worker);
  return it == closed_.end() ? absl::OkStatus() : it->second;
}

}  // namespace witan

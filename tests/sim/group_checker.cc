#include "tests/sim/group_checker.h"

#include <algorithm>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr char kEpochs[] = "epochs";
constexpr char kSteps[] = "steps";
constexpr char kBlocks[] = "blocks";

std::optional<Epoch> EpochOf(const WorkerMessage& message) {
  return std::visit(
      [](const auto& alternative) -> std::optional<Epoch> {
        if constexpr (requires { alternative.epoch; }) {
          return alternative.epoch;
        } else {
          return std::nullopt;
        }
      },
      message);
}

}  // namespace

GroupChecker::GroupChecker(SimJournal& journal, TokenChecker& tokens,
                           const ReplicaOptions& options)
    : journal_(journal),
      tokens_(tokens),
      order_(journal, tokens, options),
      num_ranks_(static_cast<size_t>(options.layout.num_ranks())),
      vocab_size_(options.model.vocab_size) {}

bool GroupChecker::IsStale(const WorkerMessage& message) const {
  const std::optional<Epoch> epoch = EpochOf(message);
  return epoch && (*epoch != epoch_ || !alive_);
}

// --- At the coordinator
// ---------------------------------------------------------

void GroupChecker::OnReceived(WorkerId worker, const WorkerMessage& message) {
  if (IsStale(message) || !workers_.contains(worker)) return;
  if (const auto* result = std::get_if<StepResult>(&message)) {
    OnResult(worker, *result);
  } else if (std::holds_alternative<GroupFailed>(message)) {
    must_end_ = true;
  }
}

void GroupChecker::OnClosed(WorkerId worker) {
  if (alive_ && workers_.contains(worker)) must_end_ = true;
}

void GroupChecker::OnClosing(WorkerId worker) {
  if (alive_ && num_ranks_ == 1 && workers_.contains(worker)) may_end_ = true;
}

void GroupChecker::OnResult(WorkerId worker, const StepResult& result) {
  StepNumber& last = workers_.at(worker);
  if (in_flight_.empty() || result.step != last + 1 ||
      result.step > in_flight_.back().step) {
    must_end_ = true;
    return;
  }
  last = result.step;
  ++in_flight_[result.step - in_flight_.front().step].num_answers;
  while (!in_flight_.empty() &&
         in_flight_.front().num_answers == workers_.size()) {
    applied_ = in_flight_.front().step;
    for (const SequenceId id : in_flight_.front().sampled) {
      tokens_.OnSampled(id);
    }
    in_flight_.pop_front();
  }
}

void GroupChecker::OnSent(const SendMessage& send) {
  if (const auto* prepare = std::get_if<PrepareGroup>(&send.message)) {
    for (const WorkerId worker : send.workers) OnPrepare(worker, *prepare);
  } else if (const auto* plan = std::get_if<StepPlan>(&send.message)) {
    OnPlan(send.workers, *plan);
  } else if (const auto* abort = std::get_if<AbortGroup>(&send.message)) {
    if (abort->epoch == epoch_) EndEpoch();
  } else if (const auto* connect = std::get_if<ConnectGroup>(&send.message)) {
    if (!alive_ || connect->epoch != epoch_) {
      journal_.Fail(kEpochs, "epoch {} connects, which is over",
                    connect->epoch);
    }
  }
}

void GroupChecker::CheckEnded(ReplicaState state) {
  if (!must_end_) return;
  // Where the only rank is gone there is nobody to send an AbortGroup to.
  if (num_ranks_ > 1 || state != ReplicaState::kWaitingForWorkers) {
    journal_.Fail(kEpochs, "epoch {} goes on without one of its ranks", epoch_);
  }
  EndEpoch();
}

void GroupChecker::EndEpoch() {
  alive_ = false;
  must_end_ = false;
  may_end_ = false;
  in_flight_.clear();
}

void GroupChecker::OnPrepare(WorkerId worker, const PrepareGroup& prepare) {
  if (prepare.epoch < epoch_ || (prepare.epoch == epoch_ && !alive_)) {
    journal_.Fail(kEpochs, "epoch {} is prepared after epoch {}", prepare.epoch,
                  epoch_);
    return;
  }
  if (prepare.epoch > epoch_) {
    if (alive_ && !may_end_) {
      journal_.Fail(kEpochs, "epoch {} begins, and {} has not ended",
                    prepare.epoch, epoch_);
    }
    EndEpoch();
    epoch_ = prepare.epoch;
    alive_ = true;
    workers_.clear();
    ranks_.clear();
    sequence_of_slot_.clear();
    tenant_of_block_.clear();
    applied_ = 0;
    order_.OnGroup(prepare.num_blocks, prepare.max_sequences);
    rank_.emplace(epoch_, prepare.max_step_tokens, prepare.max_sequences,
                  prepare.num_blocks, vocab_size_);
  }
  if (!workers_.emplace(worker, 0).second ||
      !ranks_.insert(prepare.rank).second) {
    journal_.Fail(kEpochs, "epoch {} has rank {} or connection {} twice",
                  epoch_, prepare.rank, worker);
  }
}

void GroupChecker::OnPlan(const std::vector<WorkerId>& workers,
                          const StepPlan& plan) {
  if (!alive_ || plan.epoch != epoch_) {
    journal_.Fail(kEpochs, "step {} of epoch {} is sent, which is over",
                  plan.step, plan.epoch);
    return;
  }
  if (workers.size() != num_ranks_ ||
      !std::all_of(workers.begin(), workers.end(), [this](WorkerId worker) {
        return workers_.contains(worker);
      })) {
    journal_.Fail(kSteps, "step {} goes to {} of {} ranks", plan.step,
                  workers.size(), num_ranks_);
  }
  if (in_flight_.size() > kMaxLookAheadSteps) {
    journal_.Fail(kSteps, "step {} is sent while {} are in flight", plan.step,
                  in_flight_.size());
  }
  InFlight step;
  step.step = plan.step;
  if (plan.step > 1) CheckSequences(plan, step);
  const absl::StatusOr<StepResult> result = rank_->Run(plan, applied_);
  if (!result.ok()) {
    journal_.Fail(kBlocks, "epoch {}, step {} is sent when {} is applied: {}",
                  epoch_, plan.step, applied_, MessageOf(result.status()));
  }
  most_sequences_ = std::max(most_sequences_, plan.num_sequences());
  in_flight_.push_back(std::move(step));
}

void GroupChecker::CheckSequences(const StepPlan& plan, InFlight& step) {
  for (const SlotStart& start : plan.slot_starts) {
    const auto id = tokens_.Find(start.sampling.seed, start.choice);
    if (!id) {
      journal_.Fail(kSteps, "step {} starts what nobody asked for", plan.step);
      return;
    }
    sequence_of_slot_[start.slot] = *id;
  }
  std::vector<SequenceId> ids;
  for (int s = 0; s < plan.num_sequences(); ++s) {
    const auto it = sequence_of_slot_.find(plan.slots[s]);
    if (it == sequence_of_slot_.end() || tokens_.ended(it->second)) {
      journal_.Fail(kSteps, "step {} has rows for a sequence that is over",
                    plan.step);
      return;
    }
    if (tokens_.paused(it->second)) {
      journal_.Fail(kSteps, "step {} has rows for sequence {}, which is paused",
                    plan.step, it->second);
    }
    CheckTenant(plan, s, it->second);
    if (plan.samples[s] != 0) step.sampled.push_back(it->second);
    ids.push_back(it->second);
  }
  order_.OnPlan(plan, ids);
}

void GroupChecker::CheckTenant(const StepPlan& plan, int sequence,
                               SequenceId id) {
  int64_t num_cached_blocks = 0;
  for (const SlotStart& start : plan.slot_starts) {
    if (start.slot == plan.slots[sequence]) {
      num_cached_blocks = start.num_cached_tokens / kBlockTokens;
    }
  }
  num_shared_blocks_ += num_cached_blocks;
  const std::string& tenant = tokens_.tenant(id);
  for (int32_t i = plan.new_block_begin[sequence];
       i < plan.new_block_begin[sequence + 1]; ++i) {
    std::string& owner = tenant_of_block_[plan.new_block_ids[i]];
    if (i - plan.new_block_begin[sequence] >= num_cached_blocks) {
      owner = tenant;
    } else if (owner != tenant) {
      journal_.Fail(kBlocks, "sequence {} of {} is given block {} of {}", id,
                    tenant, plan.new_block_ids[i], owner);
    }
  }
}

// --- At the workers ---------------------------------------------------------

void GroupChecker::OnExecuted(const ExecutedStep& executed) {
  Epoch& last_epoch = epoch_of_worker_[executed.worker];
  if (executed.epoch < last_epoch) {
    journal_.Fail(kEpochs, "worker {} executes epoch {} after {}",
                  executed.worker, executed.epoch, last_epoch);
  }
  last_epoch = executed.epoch;
  auto& [worker, step] = executed_[{executed.epoch, executed.rank}];
  if (step == 0) worker = executed.worker;
  if (worker != executed.worker) {
    journal_.Fail(kEpochs, "rank {} of epoch {} is both worker {} and {}",
                  executed.rank, executed.epoch, worker, executed.worker);
  }
  if (executed.step != step + 1) {
    journal_.Fail(kSteps, "worker {} executes step {} of epoch {} after {}",
                  executed.worker, executed.step, executed.epoch, step);
  }
  step = executed.step;
}

}  // namespace witan

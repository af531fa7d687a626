#include "tests/sim/sim_worker.h"

#include <utility>

#include "base/status.h"

namespace witan {
namespace {

constexpr Micros kMaxHeartbeatPause = 3 * kMicrosPerSecond;

}  // namespace

void WorkerCounters::Add(const WorkerCounters& other) {
  num_crashes += other.num_crashes;
  num_pauses += other.num_pauses;
  num_executed += other.num_executed;
  num_refused_plans += other.num_refused_plans;
  num_bad_returns += other.num_bad_returns;
}

SimWorker::SimWorker(int index, FakeWorkerOptions healthy, SimClock& clock,
                     SimRandom& random, SimJournal& journal,
                     SimNetwork& network, Observer on_executed)
    : index_(index),
      healthy_(std::move(healthy)),
      clock_(clock),
      random_(random),
      journal_(journal),
      network_(network),
      on_executed_(std::move(on_executed)) {}

// --- Life --------------------------------------------------------------------

void SimWorker::Start() {
  if (dead_) return;
  up_ = true;
  SendHeartbeat(process_);
  Dial();
}

void SimWorker::Crash(bool silently, Micros down_for, bool wrongly) {
  if (!up_) return;
  ++counters_.num_crashes;
  up_ = false;
  ++process_;
  if (connection_) {
    silently ? network_.Vanish(*connection_)
             : network_.CloseByWorker(*connection_);
  }
  connection_.reset();
  fake_.reset();
  inbox_.clear();
  working_ = false;
  paused_until_ = 0;
  wrong_ = Wrong::kNot;
  if (wrongly) {
    ++counters_.num_bad_returns;
    wrong_ = static_cast<Wrong>(random_.Between(1, 3));
  }
  journal_.Log("worker {}: crashes{}, back in {} ms{}", index_,
               silently ? " silently" : "", down_for / kMicrosPerMilli,
               wrongly ? ", wrong" : "");
  clock_.After(down_for, [this, process = process_] {
    if (process == process_) Start();
  });
}

void SimWorker::Die() {
  dead_ = true;
  Crash(random_.Chance(0.5), 1, false);
}

void SimWorker::PauseUntil(Micros until) {
  if (!up_ || until <= paused_until_) return;
  ++counters_.num_pauses;
  paused_until_ = until;
  journal_.Log("worker {}: pauses for {} ms", index_,
               (until - clock_.now()) / kMicrosPerMilli);
}

void SimWorker::Hang() {
  if (!fake_) return;
  journal_.Log("worker {}: hangs", index_);
  fake_->options.silent_on_steps = true;
}

void SimWorker::ReportFailure() {
  if (!fake_ || !fake_->group || paused_until_ > clock_.now()) return;
  const Epoch epoch = fake_->group->epoch;
  fake_->group.reset();
  journal_.Log("worker {}: gives epoch {} up", index_, epoch);
  Send(GroupFailed{epoch, Internal("a failure of the device")});
}

void SimWorker::Repair() {
  if (wrong_ != Wrong::kNot) Crash(false, kMicrosPerSecond, false);
}

FakeWorkerOptions SimWorker::OptionsOfProcess() const {
  FakeWorkerOptions options = healthy_;
  options.registration.process_id = 1000 * index_ + process_;
  if (wrong_ == Wrong::kTokens) options.known_answer_perturbation = 1;
  if (wrong_ == Wrong::kNumericsId) options.numerics_id = "numerics-2";
  if (wrong_ == Wrong::kBuild) options.registration.build_id = "build-b";
  return options;
}

void SimWorker::Dial() {
  connection_ = network_.Dial(index_);
  highest_epoch_ = 0;
  last_step_ = 0;
  fake_.emplace(OptionsOfProcess());
  journal_.Log("worker {}: dials, connection {}", index_, *connection_);
  Send(fake_->Hello());
}

void SimWorker::SendHeartbeat(int process) {
  if (process != process_) return;
  if (connection_ && clock_.now() >= paused_until_) Send(Heartbeat{});
  clock_.After(random_.Between(kMicrosPerSecond, kMaxHeartbeatPause),
               [this, process] { SendHeartbeat(process); });
}

// --- Messages
// ------------------------------------------------------------------

void SimWorker::OnArrival(WorkerId connection, const ToWorker& item) {
  if (connection != connection_) return;  // of a process before
  inbox_.push_back(item);
  StartNext();
}

void SimWorker::StartNext() {
  if (working_ || inbox_.empty()) return;
  working_ = true;
  const Micros begin = std::max(clock_.now(), paused_until_);
  clock_.At(begin + TimeFor(inbox_.front()),
            [this, process = process_] { FinishFirst(process); });
}

void SimWorker::FinishFirst(int process) {
  if (process != process_) return;
  if (paused_until_ > clock_.now()) {
    clock_.At(paused_until_, [this, process] { FinishFirst(process); });
    return;
  }
  working_ = false;
  const ToWorker item = std::move(inbox_.front());
  inbox_.pop_front();
  Take(item);
  StartNext();
}

Micros SimWorker::TimeFor(const ToWorker& item) {
  const auto* message =
      std::get_if<std::shared_ptr<const CoordinatorMessage>>(&item);
  if (message == nullptr) return 1;
  if (std::holds_alternative<StepPlan>(**message)) {
    return random_.Between(100, 20000);
  }
  if (std::holds_alternative<PrepareGroup>(**message)) {
    return random_.Between(10000, 800000);
  }
  return random_.Between(1, 2000);
}

void SimWorker::Take(const ToWorker& item) {
  if (const auto* closed = std::get_if<ConnectionClosed>(&item)) {
    journal_.Log("worker {}: connection {} ended: {}", index_, *connection_,
                 closed->cause);
    connection_.reset();
    fake_.reset();
    inbox_.clear();
    const Micros pause = random_.Between(100000, 2000000);
    clock_.After(pause, [this, process = process_] {
      if (process == process_) Dial();
    });
    return;
  }
  TakeMessage(*std::get<std::shared_ptr<const CoordinatorMessage>>(item));
}

void SimWorker::TakeMessage(const CoordinatorMessage& message) {
  if (const auto* plan = std::get_if<StepPlan>(&message)) {
    TakePlan(*plan);
    return;
  }
  if (const auto* prepare = std::get_if<PrepareGroup>(&message)) {
    // Only a network that repeats or reorders brings such a one.
    if (prepare->epoch <= highest_epoch_) return;
    highest_epoch_ = prepare->epoch;
    last_step_ = 0;
    fake_->options.silent_on_steps = false;
    journal_.Log("worker {}: prepares epoch {}, rank {}", index_,
                 prepare->epoch, prepare->rank);
  }
  for (WorkerMessage& answer : fake_->OnMessage(message)) {
    Send(std::move(answer));
  }
}

void SimWorker::TakePlan(const StepPlan& plan) {
  if (!fake_->group || fake_->group->epoch != plan.epoch) {
    ++counters_.num_refused_plans;
    return;
  }
  const int rank = fake_->group->rank;
  if (plan.step != last_step_ + 1 && !network_.IsLawfulDown(*connection_)) {
    fake_->group.reset();
    Send(GroupFailed{plan.epoch, Internal("step {} came after step {}",
                                          plan.step, last_step_)});
    return;
  }
  const int num_steps = fake_->num_steps;
  std::vector<WorkerMessage> answers = fake_->OnMessage(plan);
  if (!fake_->violation.ok()) {
    journal_.Fail("worker", "worker {}, epoch {}: {}", index_, plan.epoch,
                  MessageOf(fake_->violation));
  }
  if (fake_->num_steps > num_steps) {
    last_step_ = plan.step;
    ++counters_.num_executed;
    journal_.Log("worker {}: executes step {} of epoch {}", index_, plan.step,
                 plan.epoch);
    on_executed_({index_, *connection_, rank, plan.epoch, plan.step});
  }
  for (WorkerMessage& answer : answers) {
    auto* result = std::get_if<StepResult>(&answer);
    if (result != nullptr && wrong_ != Wrong::kNot && plan.step > 1) {
      for (SampledToken& token : result->tokens) {
        token.token_id =
            static_cast<TokenId>((token.token_id + 1) % healthy_.vocab_size);
      }
    }
    Send(std::move(answer));
  }
}

void SimWorker::Send(WorkerMessage message) {
  network_.SendUp(*connection_, std::move(message));
}

}  // namespace witan

#include "cli/bench/runner.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/limits.h"
#include "cli/generation.h"
#include "proto/inference.grpc.pb.h"

namespace witan::bench {
namespace {

Micros CpuTime() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto micros = [](const timeval& time) {
    return static_cast<Micros>(time.tv_sec) * kMicrosPerSecond + time.tv_usec;
  };
  return micros(usage.ru_utime) + micros(usage.ru_stime);
}

v1::GenerateRequest MakeRequest(const Plan& plan,
                                const PlannedRequest& planned) {
  v1::GenerateRequest request;
  const std::vector<int32_t> ids = plan.TokenIds(planned);
  request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  if (planned.tenant) request.set_tenant(*planned.tenant);
  if (planned.priority) request.set_priority(*planned.priority);
  v1::GenerationParameters& parameters = *request.mutable_parameters();
  parameters.set_temperature(planned.temperature);
  parameters.set_seed(planned.seed);
  parameters.set_max_tokens(planned.output_tokens);
  parameters.set_ignore_eos(true);
  return request;
}

}  // namespace

struct Runner::Stubs {
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs;
};

// One request in flight. Its reactions run on gRPC's threads, one at a time;
// it is the runner's thread's before Start and after Runner::OnDone.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(Runner& runner, PlannedRequest planned)
      : runner_(runner),
        planned_(std::move(planned)),
        request_(MakeRequest(runner.plan_, planned_)) {}

  void Start(v1::Inference::Stub& stub, int64_t timeout_ms) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::milliseconds(timeout_ms));
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&chunk_);
    record_.sent_us = Now();
    StartCall();
  }
  // Thread-safe.
  void Cancel() { context_.TryCancel(); }

  const PlannedRequest& planned() const { return planned_; }
  // The end of it all.
  Record TakeRecord() {
    record_.class_index = planned_.class_index;
    record_.index = planned_.index;
    record_.is_warmup = planned_.is_warmup;
    record_.open_loop =
        !planned_.is_warmup &&
        runner_.plan_.classes()[static_cast<size_t>(planned_.class_index)]
            .open_loop();
    record_.due_us = planned_.due_us;
    record_.prompt_tokens = planned_.prompt_tokens;
    record_.shared_tokens = runner_.plan_.SharedTokens(planned_);
    record_.output_tokens = planned_.output_tokens;
    record_.prefix = planned_.prefix;
    return std::move(record_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const Micros now = Now();
    const int num_tokens = chunk_.token_ids_size();
    failure_ = Append(chunk_, /*num_choices=*/1, &result_);
    if (!failure_.ok()) {
      context_.TryCancel();
      return;
    }
    if (num_tokens > 0) {
      record_.arrivals.push_back({now, num_tokens});
      runner_.OnTokens(num_tokens);
    }
    StartRead(&chunk_);
  }

  void OnDone(const grpc::Status& status) override {
    record_.ended_us = Now();
    grpc::Status end = failure_.ok() ? status : failure_;
    if (end.ok()) end = CheckFinished(/*num_choices=*/1, result_);
    if (end.ok()) end = CheckLength();
    record_.code = end.error_code();
    record_.message = end.error_message();
    if (end.ok()) {
      const ChoiceResult& choice = result_.choices.front();
      record_.server_queue_ms = choice.timings.queue_ms();
      record_.cached_tokens = choice.usage.cached_tokens();
    }
    runner_.OnDone(this);  // nothing of this may be touched after it
  }

 private:
  Micros Now() const { return runner_.clock_.Now() - runner_.begin_; }

  // A request that made other tokens than it was asked for would make numbers
  // that mean nothing.
  grpc::Status CheckLength() const {
    const ChoiceResult& choice = result_.choices.front();
    if (choice.finish_reason == v1::FINISH_REASON_LENGTH &&
        static_cast<int64_t>(choice.token_ids.size()) ==
            planned_.output_tokens) {
      return grpc::Status::OK;
    }
    return grpc::Status(
        grpc::StatusCode::DATA_LOSS,
        fmt::format("the stream finished as \"{}\" after {} of {} tokens",
                    NameOf(choice.finish_reason), choice.token_ids.size(),
                    planned_.output_tokens));
  }

  Runner& runner_;
  const PlannedRequest planned_;
  const v1::GenerateRequest request_;
  grpc::ClientContext context_;
  v1::GenerateResponse chunk_;
  GenerationResult result_;
  grpc::Status failure_;
  Record record_;
};

Runner::Runner(const Plan& plan,
               const std::vector<std::shared_ptr<grpc::Channel>>& channels,
               const RunnerOptions& options, const Clock& clock)
    : plan_(plan),
      options_(options),
      clock_(clock),
      stubs_(std::make_unique<Stubs>()) {
  for (const auto& channel : channels) {
    stubs_->stubs.push_back(v1::Inference::NewStub(channel));
  }
}

Runner::~Runner() = default;

bool Runner::interrupted() const {
  return options_.interrupted != nullptr && *options_.interrupted;
}

RunResult Runner::Run(const ProgressFn& on_progress) {
  if (plan_.workload().num_warmup_requests > 0) {
    WarmupFeed warmup(plan_);
    Drive(/*is_warmup=*/true, warmup, on_progress);
  }
  LoadFeed load(plan_);
  const Micros cpu_before = CpuTime();
  Drive(/*is_warmup=*/false, load, on_progress);
  const Micros wall = std::max<Micros>(clock_.Now() - begin_, 1);
  result_.client_cores =
      static_cast<double>(CpuTime() - cpu_before) / static_cast<double>(wall);
  result_.interrupted = cancelled_;
  if (cancelled_) result_.num_unsent = load.num_left();
  result_.stopped_at_max_requests = load.stopped_at_max_requests();
  return std::move(result_);
}

void Runner::Drive(bool is_warmup, Feed& feed, const ProgressFn& on_progress) {
  begin_ = clock_.Now();
  state_ = {.is_warmup = is_warmup};
  num_tokens_ = 0;
  Micros next_tick = 0;
  const auto show = [&](Micros now) {
    state_.elapsed_us = now;
    state_.num_in_flight = static_cast<int64_t>(live_.size());
    state_.num_tokens = num_tokens_;
    on_progress(state_);
  };
  while (true) {
    Harvest(feed);
    const bool stops = interrupted();
    if (stops && !cancelled_) CancelAll();
    const Micros now = clock_.Now() - begin_;
    const std::optional<Micros> due = stops ? std::nullopt : feed.NextDue();
    if (!due.has_value() && live_.empty()) return show(now);
    if (now >= next_tick) {
      show(now);
      next_tick = now + kBenchProgressIntervalMs * kMicrosPerMilli;
    }
    if (due.has_value() && *due <= now) {
      Send(feed.Take());
    } else {
      WaitUntil(std::min(due.value_or(next_tick), next_tick));
    }
  }
}

void Runner::Send(PlannedRequest request) {
  auto call = std::make_unique<Call>(*this, std::move(request));
  Call* const raw = call.get();
  live_.emplace(raw, std::move(call));
  v1::Inference::Stub& stub = *stubs_->stubs[next_stub_];
  next_stub_ = (next_stub_ + 1) % stubs_->stubs.size();
  raw->Start(stub, options_.timeout_ms);
}

void Runner::Harvest(Feed& feed) {
  std::vector<Call*> ended;
  {
    MutexLock lock(mutex_);
    ended.swap(ended_);
  }
  for (Call* call : ended) {
    Record record = call->TakeRecord();
    if (cancelled_ && record.code == grpc::StatusCode::CANCELLED) {
      record.message = "cancelled by this program, which was interrupted";
    }
    ++state_.num_ended;
    if (!record.ok()) ++state_.num_failed;
    feed.OnEnd(call->planned(), record.ended_us);
    result_.records.push_back(std::move(record));
    live_.erase(call);
  }
}

void Runner::WaitUntil(Micros deadline) {
  const std::chrono::steady_clock::time_point at{
      std::chrono::microseconds(begin_ + deadline)};
  MutexLock lock(mutex_);
  if (ended_.empty()) changed_.WaitUntil(mutex_, at);
}

void Runner::CancelAll() {
  cancelled_ = true;
  for (const auto& [raw, call] : live_) call->Cancel();
}

void Runner::OnDone(Call* call) {
  MutexLock lock(mutex_);
  ended_.push_back(call);
  changed_.NotifyOne();
}

}  // namespace witan::bench

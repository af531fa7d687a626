// What the control plane costs, in processor time: Plan + Apply of the
// Scheduler by the number of sequences, the length of the queue and of the
// contexts, and a Replica's step by the number of its ranks. Prints tables with
// verdicts and writes plots.
//
//   bench_schedule [--svg PATH]       default: build/bench/schedule.svg
//
// Sequences belong to 100 tenants. A row of a tenant that has others waiting
// costs more, because its place among the tenants that wait moves with it.
//
// One world has at most 56 ranks (tp = 7, ep = 8), so 256 ranks are 32 replicas
// of 8.

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "bench/svg_plot.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

double NowUs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 +
         static_cast<double>(now.tv_nsec) * 1e-3;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// What a step costs at one point of a series.
struct Point {
  double x = 0;
  double us = 0;    // of one step
  double rows = 0;  // in it
};

// The result of a step in which rank 0 sampled something.
StepResult ResultOf(const StepPlan& plan) {
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  const auto num_samples =
      std::count_if(plan.samples.begin(), plan.samples.end(),
                    [](uint8_t samples) { return samples != 0; });
  result.tokens.resize(num_samples);
  for (SampledToken& token : result.tokens) {
    token.token_id = static_cast<TokenId>(plan.step % 300);
  }
  return result;
}

// --- Scheduler ---------------------------------------------------------------

struct Load {
  int64_t num_sequences = 0;
  int64_t max_running = 0;
  int64_t context_tokens = 64;
};

// A Scheduler whose running sequences have their prompts behind them.
class DecodingScheduler {
 public:
  explicit DecodingScheduler(const Load& load)
      : scheduler_(Options(load), 1, 1) {
    for (int64_t i = 0; i < load.num_sequences; ++i) {
      SequenceSpec spec;
      spec.id = i + 1;
      spec.tenant = fmt::format("tenant-{}", i % 100);
      spec.sampling.seed = spec.id;
      spec.stop.max_tokens = kMaxOutputTokens;
      for (int64_t position = 0; position < load.context_tokens; ++position) {
        spec.prompt.push_back(
            static_cast<TokenId>((i * 7919 + position) % 32000));
      }
      WITAN_CHECK(scheduler_.Add(std::move(spec), 0).ok());
    }
    const int64_t num_running = std::min(load.num_sequences, load.max_running);
    while (num_rows_ != num_running || num_decoding_ != num_running) Step();
  }

  // One step is planned, as in life while the one before runs, and the oldest
  // applied.
  void Step() {
    while (std::optional<StepPlan> plan = scheduler_.Plan(0)) {
      num_rows_ = plan->num_rows();
      num_decoding_ = std::count(plan->samples.begin(), plan->samples.end(), 1);
      results_.push_back(ResultOf(*plan));
    }
    WITAN_CHECK(scheduler_.Apply(std::move(results_.front()), 0).ok());
    results_.pop_front();
    scheduler_.TakeEvents();
  }

  // Median over groups of steps.
  double MeasureUs() {
    const int64_t num_steps = std::clamp<int64_t>(20000 / num_rows_, 10, 200);
    std::vector<double> us;
    for (int group = 0; group < 7; ++group) {
      const double start = NowUs();
      for (int64_t step = 0; step < num_steps; ++step) Step();
      us.push_back((NowUs() - start) / static_cast<double>(num_steps));
    }
    return Median(us);
  }

  int64_t num_rows() const { return num_rows_; }

 private:
  static constexpr int64_t kMaxOutputTokens = 4096;

  static SchedulerOptions Options(const Load& load) {
    SchedulerOptions options;
    options.max_step_tokens = kMaxStepTokens;
    options.max_prefill_chunk_tokens = kMaxStepTokens;
    options.max_sequences = load.max_running;
    options.max_context_tokens = load.context_tokens + kMaxOutputTokens;
    options.num_blocks =
        load.max_running * (BlocksFor(options.max_context_tokens) + 1) + 1;
    return options;
  }

  Scheduler scheduler_;
  std::deque<StepResult> results_;
  int64_t num_rows_ = 0;
  int64_t num_decoding_ = 0;
};

// A Scheduler whose sequences have short answers, so that some end and others
// are admitted in every step; who ended comes back at the end of the queue.
class BusyScheduler {
 public:
  BusyScheduler(int64_t num_running, int64_t num_waiting)
      : scheduler_(Options(num_running), 1, 1) {
    for (int64_t i = 0; i < num_running + num_waiting; ++i) Add();
    for (int step = 0; step < 100; ++step) Step();
  }

  void Step() {
    while (std::optional<StepPlan> plan = scheduler_.Plan(0)) {
      num_rows_ += plan->num_rows();
      num_admitted_ += static_cast<int64_t>(plan->slot_starts.size());
      ++num_steps_;
      results_.push_back(ResultOf(*plan));
    }
    WITAN_CHECK(scheduler_.Apply(std::move(results_.front()), 0).ok());
    results_.pop_front();
    for (const SchedulerEvent& event : scheduler_.TakeEvents()) {
      if (std::holds_alternative<FinishEvent>(event)) Add();
    }
  }

  // Median over groups of steps, with what it takes to queue them again.
  Point Measure(double x) {
    num_rows_ = num_steps_ = num_admitted_ = 0;
    std::vector<double> us;
    for (int group = 0; group < 7; ++group) {
      constexpr int kNumSteps = 200;
      const double start = NowUs();
      for (int step = 0; step < kNumSteps; ++step) Step();
      us.push_back((NowUs() - start) / kNumSteps);
    }
    WITAN_CHECK(num_admitted_ >= num_steps_, "{} admitted in {} steps",
                num_admitted_, num_steps_);
    return {x, Median(us),
            static_cast<double>(num_rows_) / static_cast<double>(num_steps_)};
  }

 private:
  static SchedulerOptions Options(int64_t num_running) {
    SchedulerOptions options;
    options.max_step_tokens = kMaxStepTokens;
    options.max_prefill_chunk_tokens = kMaxStepTokens;
    options.max_sequences = num_running;
    options.max_context_tokens = 128;
    options.num_blocks = 2 * num_running * BlocksFor(128) + 1;
    return options;
  }

  void Add() {
    SequenceSpec spec;
    spec.id = ++last_id_;
    spec.tenant = fmt::format("tenant-{}", last_id_ % 100);
    spec.sampling.seed = spec.id;
    spec.stop.max_tokens = 8 + static_cast<int64_t>(last_id_ % 25);
    for (int64_t position = 0; position < 64; ++position) {
      spec.prompt.push_back(static_cast<TokenId>(
          (static_cast<int64_t>(last_id_) * 7919 + position) % 32000));
    }
    WITAN_CHECK(scheduler_.Add(std::move(spec), 0).ok());
  }

  Scheduler scheduler_;
  std::deque<StepResult> results_;
  SequenceId last_id_ = 0;
  int64_t num_rows_ = 0;
  int64_t num_steps_ = 0;
  int64_t num_admitted_ = 0;
};

std::vector<Point> ByBusyQueue() {
  std::vector<Point> points;
  for (const int64_t n : {100, 1000, 10000}) {
    points.push_back(BusyScheduler(256, n).Measure(static_cast<double>(n)));
  }
  return points;
}

Point MeasureScheduler(double x, const Load& load) {
  DecodingScheduler scheduler(load);
  const double us = scheduler.MeasureUs();
  return {x, us, static_cast<double>(scheduler.num_rows())};
}

std::vector<Point> BySequences() {
  std::vector<Point> points;
  for (const int64_t n : {1, 3, 10, 30, 100, 300, 1000, 3000, 10000}) {
    points.push_back(MeasureScheduler(
        static_cast<double>(n), {n, std::min<int64_t>(n, kMaxStepSequences)}));
  }
  return points;
}

std::vector<Point> ByQueue() {
  std::vector<Point> points;
  for (const int64_t n : {1, 10, 100, 1000, 10000}) {
    points.push_back(MeasureScheduler(static_cast<double>(n), {256 + n, 256}));
  }
  return points;
}

std::vector<Point> ByContext() {
  std::vector<Point> points;
  for (const int64_t n : {100, 1000, 10000, 100000}) {
    points.push_back(MeasureScheduler(static_cast<double>(n), {64, 64, n}));
  }
  return points;
}

// --- Replica -----------------------------------------------------------------

constexpr int64_t kReplicaSequences = 64;

class SilentSink : public TokenSink {
 public:
  bool OnToken(int64_t, const SampledToken&) override { return true; }
  void OnFinished(absl::StatusOr<FinishReason>, const SequenceUsage&) override {
  }
};

// A Replica that serves kReplicaSequences, whose ranks answer at once.
class ServingReplica {
 public:
  ServingReplica(Layout layout,
                 std::vector<std::map<std::string, std::string>> piece_hashes)
      : replica_(Options(layout)), group_(replica_) {
    FakeWorkerOptions worker = FakeTinyWorker(1);
    worker.registration.memory_bytes = int64_t{1} << 40;
    worker.piece_hashes = std::move(piece_hashes);
    for (int rank = 0; rank < layout.num_ranks(); ++rank) {
      group_.Connect(worker);
    }
    group_.Settle(now_);
    WITAN_CHECK(replica_.state() == ReplicaState::kServing, "{}",
                replica_.Snapshot().last_error);
    for (SequenceId id = 1; id <= kReplicaSequences; ++id) {
      SequenceSpec spec;
      spec.id = id;
      spec.sampling.seed = id;
      spec.prompt.assign(32, static_cast<TokenId>(id));
      spec.stop.max_tokens = 470;
      replica_.Submit(std::move(spec), std::make_unique<SilentSink>(), now_);
    }
    for (int i = 0; i < 10; ++i) Step();
  }

  // Plans what may be planned and takes all answers to the oldest step. Returns
  // the time inside the Replica.
  double Step() {
    now_ += kMicrosPerMilli;
    double start = NowUs();
    replica_.Tick(now_);
    std::vector<ReplicaOutput> outputs = replica_.TakeOutputs();
    double us = NowUs() - start;
    for (ReplicaOutput& output : outputs) {
      const SendMessage& send = std::get<SendMessage>(output);
      const StepResult result = ResultOf(std::get<StepPlan>(send.message));
      steps_.emplace_back();
      for (size_t rank = 0; rank < send.workers.size(); ++rank) {
        steps_.back().emplace_back(send.workers[rank], result);
        if (rank > 0) steps_.back().back().second.tokens.clear();
      }
    }
    start = NowUs();
    for (auto& [worker, result] : steps_.front()) {
      replica_.OnMessage(worker, std::move(result), now_);
    }
    us += NowUs() - start;
    steps_.pop_front();
    return us;
  }

 private:
  static ReplicaOptions Options(Layout layout) {
    ReplicaOptions options = FakeReplicaOptions(1);
    options.layout = layout;
    options.planner.limits.max_context_tokens = 512;
    options.planner.limits.max_step_tokens = 4096;
    options.planner.limits.max_sequences = kReplicaSequences;
    options.planner.limits.num_blocks = kReplicaSequences * 17 + 1;
    return options;
  }

  Micros now_ = 1000;
  Replica replica_;
  FakeWorkerGroup group_;
  std::deque<std::vector<std::pair<WorkerId, StepResult>>> steps_;
};

std::vector<std::map<std::string, std::string>> HashesOf(const TinyModel& model,
                                                         Layout layout) {
  const auto checkpoint = Checkpoint::Open(model.directory());
  WITAN_CHECK(checkpoint.ok());
  std::vector<std::map<std::string, std::string>> hashes;
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    auto pieces =
        HashPieces(model.config(), **checkpoint,
                   MakeRankShard(model.config(), layout, rank), 1, nullptr);
    WITAN_CHECK(pieces.ok());
    hashes.push_back(*std::move(pieces));
  }
  return hashes;
}

// x: ranks of all replicas together; us: one step of one replica.
Point MeasureReplicas(const TinyModel& model, int tp, int ep,
                      int num_replicas) {
  const Layout layout = MakeLayout(tp, ep).value();
  const auto hashes = HashesOf(model, layout);
  std::vector<std::unique_ptr<ServingReplica>> replicas;
  for (int i = 0; i < num_replicas; ++i) {
    replicas.push_back(std::make_unique<ServingReplica>(layout, hashes));
  }
  std::vector<double> us;
  for (int round = 0; round < 300; ++round) {
    double sum = 0;
    for (const auto& replica : replicas) sum += replica->Step();
    us.push_back(sum / num_replicas);
  }
  return {static_cast<double>(layout.num_ranks() * num_replicas), Median(us),
          static_cast<double>(kReplicaSequences)};
}

// --- Tables ------------------------------------------------------------------

int num_missed = 0;

void PrintVerdict(const std::string& what, double ratio, double bound) {
  const bool met = ratio <= bound;
  if (!met) ++num_missed;
  fmt::print("  {}: {:.2f} times, at most {:.2f}: {}\n\n", what, ratio, bound,
             met ? "MET" : "MISSED");
}

void PrintTable(const char* title, const char* x_name,
                const std::vector<Point>& points) {
  fmt::print("{}\n  {:>10} {:>8} {:>12} {:>12}\n", title, x_name, "rows",
             "us / step", "ns / row");
  for (const Point& point : points) {
    fmt::print("  {:>10} {:>8.0f} {:>12.2f} {:>12.1f}\n", point.x, point.rows,
               point.us, 1000 * point.us / point.rows);
  }
}

SvgPanel PanelOf(const char* title, const char* x_label, double slope,
                 const std::vector<Point>& points) {
  SvgPanel panel{title, x_label, "us per step", slope, {}};
  for (const Point& point : points)
    panel.points.emplace_back(point.x, point.us);
  return panel;
}

double CostPerRow(const std::vector<Point>& points, double x) {
  const auto it =
      std::find_if(points.begin(), points.end(),
                   [x](const Point& point) { return point.x == x; });
  WITAN_CHECK(it != points.end(), "no point at {}", x);
  return it->us / it->rows;
}

void MeasureAll(SvgPlot& plot) {
  const std::vector<Point> sequences = BySequences();
  PrintTable("Plan + Apply by sequences (at most 1024 run, the rest wait)",
             "sequences", sequences);
  PrintVerdict("a row of 1,000 costs as one of 100",
               CostPerRow(sequences, 1000) / CostPerRow(sequences, 100), 2.5);
  PrintVerdict("a row costs with 9,000 that wait as with 2,000",
               CostPerRow(sequences, 10000) / CostPerRow(sequences, 3000), 1.5);
  std::vector<Point> by_rows = sequences;
  std::erase_if(by_rows, [](const Point& point) {
    return point.x > static_cast<double>(kMaxStepSequences);
  });
  plot.Add(PanelOf("By sequences that run", "sequences", 1, by_rows));

  const std::vector<Point> queue = ByQueue();
  PrintTable("Plan + Apply by queue, 256 run", "waiting", queue);
  PrintVerdict("10,000 that wait cost as 100", queue.back().us / queue[2].us,
               1.5);
  plot.Add(PanelOf("By queue, 256 run", "sequences that wait", 0, queue));

  const std::vector<Point> busy = ByBusyQueue();
  PrintTable("The same with answers of 8 to 32 tokens: some end in every step",
             "waiting", busy);
  // A sequence that waited for long has left the processor's caches.
  PrintVerdict("10,000 that wait and are admitted cost as 100",
               busy.back().us / busy.front().us, 2);
  plot.Add(PanelOf("By queue, short answers", "sequences that wait", 0, busy));

  const std::vector<Point> context = ByContext();
  PrintTable("Plan + Apply by context, 64 run", "tokens", context);
  PrintVerdict("contexts of 100,000 tokens cost as of 100",
               context.back().us / context.front().us, 1.5);
  plot.Add(PanelOf("By context, 64 run", "tokens of each context", 0, context));

  const TinyModel model;
  std::vector<Point> ranks;
  for (const auto& [tp, ep] :
       {std::pair{1, 1}, {2, 2}, {4, 4}, {8, 8}, {3, 8}, {5, 8}, {7, 8}}) {
    ranks.push_back(MeasureReplicas(model, tp, ep, 1));
  }
  PrintTable("A step of a Replica by ranks, 64 sequences", "ranks", ranks);
  const double per_rank_8 = (ranks[3].us - ranks[0].us) / 7;
  const double per_rank_56 = (ranks.back().us - ranks[0].us) / 55;
  PrintVerdict("a rank's answer costs with 56 ranks as with 8",
               per_rank_56 / per_rank_8, 1.5);
  plot.Add(PanelOf("A Replica by ranks, 64 sequences", "ranks", 0, ranks));

  const Point many = MeasureReplicas(model, 8, 8, 32);
  PrintTable("A step of each of 32 Replicas of 8 ranks", "ranks", {many});
  PrintVerdict("a step costs with 256 ranks in 32 replicas as with 8 in one",
               many.us / ranks[3].us, 2);
}

}  // namespace
}  // namespace witan

int main(int argc, char** argv) {
  std::filesystem::path path = "build/bench/schedule.svg";
  if (argc == 3 && std::string_view(argv[1]) == "--svg") {
    path = argv[2];
  } else if (argc != 1) {
    fmt::print(stderr, "usage: bench_schedule [--svg PATH]\n");
    return 2;
  }
  witan::SvgPlot plot;
  witan::MeasureAll(plot);
  if (path.has_parent_path()) {
    std::filesystem::create_directories(path.parent_path());
  }
  std::ofstream file(path);
  file << plot.Text();
  if (!file.flush()) {
    fmt::print(stderr, "cannot write {}\n", path.string());
    return 1;
  }
  fmt::print("plots: {}\n", path.string());
  return witan::num_missed == 0 ? 0 : 1;
}

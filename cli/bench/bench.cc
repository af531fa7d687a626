#include "cli/bench/bench.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <utility>

#include "base/build_id.h"
#include "base/config.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "cli/bench/plot.h"
#include "cli/bench/report.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/status.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/inference.grpc.pb.h"

namespace witan::bench {
namespace {

// Set by the first Ctrl-C; the second one ends the process.
std::atomic<bool> interrupt_seen = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void OnInterrupt(int) { interrupt_seen = true; }

void CatchFirstInterrupt() {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

// A file that is opened before the run, so that a long run does not end in a
// path that cannot be written.
class OutputFile {
 public:
  absl::Status Open(const char* option, const std::string& path) {
    path_ = path;
    file_.open(path, std::ios::binary | std::ios::trunc);
    if (file_) return absl::OkStatus();
    return InvalidArgument(
        "{} {}: cannot write it; name a file in a directory "
        "that exists and is yours",
        option, path);
  }
  bool Write(const std::string& text) {
    file_ << text;
    file_.close();
    if (file_) return true;
    fmt::print(stderr, "error: cannot write all of {}\n", path_);
    return false;
  }

 private:
  std::string path_;
  std::ofstream file_;
};

struct Outputs {
  OutputFile json;
  OutputFile plot;
};

absl::Status OpenOutputs(const BenchOptions& options, Outputs* outputs) {
  if (options.json_requests && options.json_file.empty()) {
    return InvalidArgument("--json-requests adds to --json FILE; give both");
  }
  if (!options.json_file.empty() && options.json_file != "-") {
    RETURN_IF_ERROR(outputs->json.Open("--json", options.json_file));
  }
  if (options.plot_file.empty()) return absl::OkStatus();
  if (!options.plot_file.ends_with(".svg")) {
    return InvalidArgument("--plot {}: the plot is an SVG file; name it *.svg",
                           options.plot_file);
  }
  return outputs->plot.Open("--plot", options.plot_file);
}

absl::Status CheckRanges(const BenchOptions& options) {
  const auto check = [](const char* name, double value, double min,
                        double max) {
    if (value >= min && value <= max) return absl::OkStatus();
    return InvalidArgument("--{} is {}; allowed is {} to {}", name, value, min,
                           max);
  };
  RETURN_IF_ERROR(check("duration", options.duration_s, 0, kMaxBenchSeconds));
  RETURN_IF_ERROR(check("warmup-requests",
                        static_cast<double>(options.num_warmup_requests), 0,
                        static_cast<double>(kMaxBenchWarmupRequests)));
  RETURN_IF_ERROR(check("connections",
                        static_cast<double>(options.num_connections), 1,
                        kMaxBenchConnections));
  RETURN_IF_ERROR(
      check("timeout-s", options.timeout_s, 0.001, kMaxBenchSeconds));
  RETURN_IF_ERROR(check("replay-speed", options.trace_fit.speed, 1e-3, 1e6));
  RETURN_IF_ERROR(
      check("replay-length-scale", options.trace_fit.length_scale, 1e-6, 1e3));
  return check("replay-block-tokens",
               static_cast<double>(options.trace_fit.block_tokens), 1,
               static_cast<double>(kMaxContextTokens));
}

template <typename Request, typename Response, typename Method>
grpc::Status Ask(Method method, const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(kStatusCallTimeoutMs));
  return method(&context, request, response);
}

// Who is measured. Any error is a status of the call.
grpc::Status AskServer(const std::shared_ptr<grpc::Channel>& channel,
                       RunFacts* facts) {
  const auto inference = v1::Inference::NewStub(channel);
  v1::ListModelsResponse models;
  grpc::Status status = Ask(
      [&](auto... arguments) { return inference->ListModels(arguments...); },
      v1::ListModelsRequest(), &models);
  if (!status.ok()) return status;
  if (models.models_size() != 1) {
    return grpc::Status(
        grpc::StatusCode::FAILED_PRECONDITION,
        fmt::format("{} models are served, not one", models.models_size()));
  }
  const auto cluster = v1::Cluster::NewStub(channel);
  v1::StatusResponse cluster_status;
  status = Ask([&](auto... arguments) { return cluster->Status(arguments...); },
               v1::StatusRequest(), &cluster_status);
  if (!status.ok()) return status;
  if (cluster_status.state() != v1::GROUP_STATE_SERVING) {
    return grpc::Status(
        grpc::StatusCode::UNAVAILABLE,
        fmt::format("the cluster is {}{}{}; measure it once it serves",
                    NameOf(cluster_status.state()),
                    cluster_status.state_reason().empty() ? "" : ", ",
                    cluster_status.state_reason()));
  }
  const v1::Model& model = models.models(0);
  facts->model = model.name();
  facts->architecture = model.architecture();
  facts->weights_dtype = model.weights_dtype();
  facts->model_facts = {.vocab_size = model.vocab_size(),
                        .max_context_tokens = model.max_context_tokens()};
  facts->num_ranks = cluster_status.num_ranks();
  facts->tp = cluster_status.tp();
  facts->ep = cluster_status.ep();
  facts->server_build_id = cluster_status.build_id();
  facts->weights_id = cluster_status.weights_id();
  facts->numerics_id = cluster_status.numerics_id();
  return grpc::Status::OK;
}

// Channels that are connected, so that no request waits for that.
absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> Connect(
    const std::string& server, int64_t count) {
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int64_t i = 0; i < count; ++i) {
    channels.push_back(MakeClientChannel(server));
    if (!channels.back()->WaitForConnected(
            std::chrono::system_clock::now() +
            std::chrono::milliseconds(kConnectAttemptTimeoutMs))) {
      return Unavailable(
          "cannot reach a coordinator at {} (connection {} of {}); start one "
          "with `witan serve MODEL` or name another with --server HOST:PORT",
          server, i + 1, count);
    }
  }
  return channels;
}

// Shows a run's progress on stderr.
class ProgressPrinter {
 public:
  explicit ProgressPrinter(const Plan& plan)
      : plan_(plan), is_terminal_(isatty(STDERR_FILENO) != 0) {
    bar_.emplace(is_terminal_);
  }

  void Show(const RunState& state) {
    std::optional<int64_t> num_requests = plan_.num_requests();
    double duration_s = plan_.workload().duration_s;
    if (state.is_warmup) {
      num_requests = plan_.workload().num_warmup_requests;
      duration_s = 0;
    }
    if (state.is_warmup != previous_.is_warmup) {
      previous_ = {.is_warmup = state.is_warmup};
      Finish();
      bar_.emplace(is_terminal_);
    }
    Print(bar_->Show(state.is_warmup ? "warm-up" : "bench",
                     PercentDone(state, duration_s, num_requests),
                     DescribeProgress(state, previous_, num_requests)));
    // A rate over less than a second jumps about.
    if (state.elapsed_us - previous_.elapsed_us >= kMicrosPerSecond) {
      previous_ = state;
    }
  }
  void Finish() { Print(bar_->Finish()); }

 private:
  static void Print(const std::string& text) {
    fmt::print(stderr, "{}", text);
    std::fflush(stderr);
  }

  const Plan& plan_;
  const bool is_terminal_;
  std::optional<ProgressBar> bar_;  // of the phase that runs
  RunState previous_;
};

// 0 if nothing failed, else the code of the most frequent failure.
int ExitCodeOf(const Report& report, bool allow_errors) {
  if (allow_errors) return kExitOk;
  for (const ClassReport* each : {&report.total, &report.warmup}) {
    if (!each->errors.empty()) {
      return witan::ExitCodeOf(grpc::Status(each->errors.front().code, ""));
    }
  }
  return kExitOk;
}

int PrintReport(const BenchOptions& options, const RunFacts& facts,
                const Plan& plan, const RunResult& result, Outputs* outputs) {
  std::vector<std::string> names;
  for (const TrafficClass& traffic : plan.classes()) {
    names.push_back(traffic.name);
  }
  const Report report = MakeReport(names, facts.objectives, result.records);
  const bool json_on_stdout = options.json_file == "-";
  fmt::print(json_on_stdout ? stderr : stdout, "{}",
             ToText(facts, plan, report));
  bool written = true;
  if (!options.json_file.empty()) {
    const std::string json =
        ToJson(facts, plan, report,
               options.json_requests ? &result.records : nullptr)
            .dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
        "\n";
    if (json_on_stdout) {
      fmt::print("{}", json);
    } else {
      written = outputs->json.Write(json);
    }
  }
  if (!options.plot_file.empty()) {
    written &=
        outputs->plot.Write(PlotSvg(facts, plan, report, result.records));
  }
  if (!written) return kExitResources;
  const int code = ExitCodeOf(report, options.allow_errors);
  // Half a run is not done, even if nothing failed.
  return code == kExitOk && facts.num_unsent > 0 ? kExitInternal : code;
}

RunFacts FactsOf(const BenchOptions& options, const Objectives& objectives) {
  RunFacts facts;
  facts.server = options.server;
  facts.version = Version();
  facts.build_id = BuildId();
  facts.objectives = objectives;
  facts.num_connections = static_cast<int>(options.num_connections);
  facts.timeout_ms = std::llround(options.timeout_s * 1000);
  facts.started_at =
      fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  return facts;
}

int ReportStatus(const absl::Status& status, int exit_code) {
  fmt::print(stderr, "error: {}\n", MessageOf(status));
  return exit_code;
}

}  // namespace

absl::StatusOr<Workload> ReadWorkload(const BenchOptions& options) {
  WorkloadOptions workload;
  for (const auto& [name, value] : options.settings) {
    if (value.has_value()) workload.settings[name] = *value;
  }
  for (const auto& [name, value] : options.flags) {
    if (value) workload.settings[name] = "true";
  }
  workload.classes = options.classes;
  workload.duration_s = options.duration_s;
  workload.num_warmup_requests = options.num_warmup_requests;
  workload.seed = options.seed;
  workload.trace_fit = options.trace_fit;
  if (!options.trace_file.empty()) {
    workload.trace_file = options.trace_file;
    ASSIGN_OR_RETURN(workload.trace,
                     ReadFile(options.trace_file, kMaxTraceFileBytes));
  }
  return MakeWorkload(workload);
}

std::string DescribeProgress(const RunState& state, const RunState& previous,
                             std::optional<int64_t> num_requests) {
  const Micros elapsed = state.elapsed_us - previous.elapsed_us;
  const double rate =
      elapsed > 0
          ? static_cast<double>(state.num_tokens - previous.num_tokens) *
                static_cast<double>(kMicrosPerSecond) /
                static_cast<double>(elapsed)
          : 0;
  return fmt::format("{}{} requests, {} in flight, {} failed, {:.1f} tokens/s",
                     state.num_ended,
                     num_requests ? fmt::format(" / {}", *num_requests) : "",
                     state.num_in_flight, state.num_failed, rate);
}

std::optional<int64_t> PercentDone(const RunState& state, double duration_s,
                                   std::optional<int64_t> num_requests) {
  if (num_requests.has_value() && *num_requests <= 0) return 100;
  std::optional<int64_t> percent;  // none is less than any
  if (num_requests.has_value()) {
    percent = std::min<int64_t>(state.num_ended * 100 / *num_requests, 100);
  }
  if (duration_s > 0) {
    const double share = static_cast<double>(state.elapsed_us) /
                         (duration_s * static_cast<double>(kMicrosPerSecond));
    percent = std::max(
        percent,
        std::optional(static_cast<int64_t>(std::min(share * 100, 100.0))));
  }
  return percent;
}

int RunBench(const BenchOptions& options) {
  const absl::Status in_range = CheckRanges(options);
  if (!in_range.ok()) return ReportUsage(in_range);
  const auto objectives = ParseObjectives(options.objectives);
  if (!objectives.ok()) return ReportUsage(objectives.status());
  auto workload = ReadWorkload(options);
  if (!workload.ok()) return ReportUsage(workload.status());
  for (const std::string& field : workload->trace.ignored_fields) {
    fmt::print(stderr, "{}: the field \"{}\" means nothing here\n",
               options.trace_file, field);
  }
  Outputs outputs;
  const absl::Status opened = OpenOutputs(options, &outputs);
  if (!opened.ok()) return ReportUsage(opened);

  const auto channels = Connect(options.server, options.num_connections);
  if (!channels.ok()) return ReportStatus(channels.status(), kExitPeerLost);
  RunFacts facts = FactsOf(options, *objectives);
  const grpc::Status asked = AskServer(channels->front(), &facts);
  if (!asked.ok()) return ReportError(asked, options.server);
  const auto plan = Plan::Make(*std::move(workload), facts.model_facts);
  if (!plan.ok()) {
    return ReportUsage(options.trace_file.empty()
                           ? plan.status()
                           : Annotate(plan.status(), options.trace_file));
  }

  CatchFirstInterrupt();
  Runner runner(
      *plan, *channels,
      {.timeout_ms = facts.timeout_ms, .interrupted = &interrupt_seen},
      MonotonicClock());
  ProgressPrinter progress(*plan);
  const RunResult result =
      runner.Run([&](const RunState& state) { progress.Show(state); });
  progress.Finish();
  facts.interrupted = result.interrupted;
  facts.num_unsent = result.num_unsent;
  facts.stopped_at_max_requests = result.stopped_at_max_requests;
  facts.client_cores = result.client_cores;
  return PrintReport(options, facts, *plan, result, &outputs);
}

}  // namespace witan::bench

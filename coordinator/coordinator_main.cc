// witan-coordinator: serves one model with the workers that join it.
//
// stdout, for people and for scripts, each line once:
//   listening grpc=HOST:PORT metrics=HOST:PORT     workers may join
//   ready grpc=HOST:PORT metrics=HOST:PORT model=NAME tp=T ep=E ranks=R

#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/build_id.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/process.h"
#include "base/status.h"
#include "coordinator/api/api_server.h"
#include "coordinator/api/served_model.h"
#include "coordinator/cluster/grpc_worker_link.h"
#include "coordinator/cluster/planner.h"
#include "coordinator/cluster/replica_set.h"
#include "coordinator/cluster/trace_file.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"

namespace witan {
namespace {

struct Options {
  std::string model;
  std::string served_model_name;
  std::string reasoning_markers = "auto";
  std::string host = "127.0.0.1";
  int port = 50051;
  int metrics_port = 9090;
  bool insecure_listen = false;
  int tp = 1;
  int ep = 1;
  int64_t max_context = 0;
  int64_t max_step_tokens = 512;
  int64_t max_sequences = 64;
  int64_t num_blocks = 0;
  int64_t chunk = 256;
  int64_t chunk_beside_decode = 128;
  bool prefix_cache = true;
  std::string transport = "auto";
  int threads = 0;
  int replicas = 1;
  std::string routing = "prefix";
  std::string trace;
  bool look_ahead = true;
  int64_t one_shot_max_kib = 64;
  std::string adapters;
  int64_t max_adapters = 4;
  int64_t max_adapter_rank = 16;
  int max_streams = 1024;
  int text_threads = 2;
};

void AddListenOptions(CLI::App& app, Options& options) {
  app.add_option("--host", options.host, "Address to listen on")
      ->capture_default_str();
  app.add_option("--port", options.port,
                 "gRPC port for clients and workers; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--metrics-port", options.metrics_port,
                 "Port of /metrics; 0: any free one, -1: none")
      ->check(CLI::Range(-1, 65535))
      ->capture_default_str();
  app.add_flag("--insecure-listen", options.insecure_listen,
               "Allow plaintext ports on other addresses than loopback");
}

void AddClusterOptions(CLI::App& app, Options& options) {
  app.add_option("--tp", options.tp,
                 "Ranks that share attention and vocabulary")
      ->check(CLI::Range(1, kNumLeaves))
      ->capture_default_str();
  app.add_option("--ep", options.ep, "Ranks that share the experts")
      ->check(CLI::Range(1, kNumLeaves))
      ->capture_default_str();
  app.add_option("--replicas", options.replicas,
                 "Copies of the model, each on its own tp x ep workers")
      ->check(CLI::Range(1, kMaxReplicas))
      ->capture_default_str();
  app.add_option("--routing", options.routing,
                 "Which replica takes a request: prefix (by cached prompts and "
                 "load) or round-robin")
      ->check(CLI::IsMember({"prefix", "round-robin"}))
      ->capture_default_str();
  app.add_option("--transport", options.transport,
                 "How ranks exchange tensors: auto, shm or tcp")
      ->check(CLI::IsMember({"auto", "shm", "tcp"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads,
                 "Compute threads of each rank; 0: cores / ranks on the host")
      ->check(CLI::Range(0, kMaxThreadsPerRank))
      ->capture_default_str();
  app.add_option("--one-shot-max-kib", options.one_shot_max_kib,
                 "Tree sums up to this size per rank take one round instead of "
                 "two")
      ->check(CLI::Range(int64_t{0}, kMaxOneShotKib))
      ->capture_default_str();
}

void AddEngineOptions(CLI::App& app, Options& options) {
  app.add_option("--max-context", options.max_context,
                 "Tokens of prompt and output together; 0: the model's own")
      ->check(CLI::Range(int64_t{0}, kMaxContextTokens));
  app.add_option("--max-step-tokens", options.max_step_tokens,
                 "Token rows of one step")
      ->check(CLI::Range(1, kMaxStepTokens))
      ->capture_default_str();
  app.add_option("--max-sequences", options.max_sequences,
                 "Sequences computed at once")
      ->check(CLI::Range(1, kMaxStepSequences))
      ->capture_default_str();
  app.add_option("--num-blocks", options.num_blocks,
                 "Blocks of the KV cache; 0: as many as fit")
      ->check(CLI::Range(0, kMaxBlocks));
  app.add_option("--chunk", options.chunk,
                 "Prompt tokens of one sequence in one step at most")
      ->check(CLI::Range(1, kMaxStepTokens))
      ->capture_default_str();
  app.add_option("--chunk-beside-decode", options.chunk_beside_decode,
                 "Prompt tokens of one step beside sequences that are being "
                 "answered; 0: no such bound")
      ->check(CLI::Range(0, kMaxStepTokens))
      ->capture_default_str();
  app.add_flag("--prefix-cache,!--no-prefix-cache", options.prefix_cache,
               "Keep prompts for requests that begin like them (default: on)");
  app.add_flag("--look-ahead,!--no-look-ahead", options.look_ahead,
               "Send step k+1 while step k runs (default: on)");
  app.add_option("--adapters", options.adapters,
                 "Directory whose folders are LoRA adapters (PEFT) that may be "
                 "loaded by name")
      ->check(CLI::ExistingDirectory);
  app.add_option("--max-adapters", options.max_adapters,
                 "With --adapters: how many may be loaded at once")
      ->check(CLI::Range(int64_t{1}, kMaxAdapters))
      ->capture_default_str();
  app.add_option("--max-adapter-rank", options.max_adapter_rank,
                 "With --adapters: the largest rank of one; each takes memory "
                 "for so much")
      ->check(CLI::Range(int64_t{1}, kMaxAdapterRank))
      ->capture_default_str();
  app.add_option("--trace", options.trace,
                 "Write what happens when to this file, for chrome://tracing "
                 "or Perfetto");
  app.add_option("--max-streams", options.max_streams,
                 "Generate and Chat streams open at once; one tenant may have "
                 "seven eighths of them")
      ->check(CLI::Range(1, kMaxConcurrentStreams))
      ->capture_default_str();
  app.add_option("--text-threads", options.text_threads,
                 "Threads that run templates and the tokenizer")
      ->check(CLI::Range(1, kMaxTextPoolThreads))
      ->capture_default_str();
}

void AddOptions(CLI::App& app, Options& options) {
  app.set_version_flag("--version", VersionLine("witan-coordinator"));
  app.add_option("MODEL", options.model,
                 "Hugging Face model directory, or .gguf file")
      ->required();
  app.add_option("--served-model-name", options.served_model_name,
                 "Name for clients. Default: the directory's");
  app.add_option("--reasoning-markers", options.reasoning_markers,
                 "What is around a thought: BEGIN,END, none, or auto: <think> "
                 "and </think> if tokenizer or chat template know them")
      ->capture_default_str();
  AddListenOptions(app, options);
  AddClusterOptions(app, options);
  AddEngineOptions(app, options);
}

int Fail(int exit_code, const absl::Status& status) {
  fmt::print(stderr, "error: {}\n", MessageOf(status));
  return exit_code;
}

ReplicaOptions MakeReplicaOptions(const Options& options,
                                  const ServedModel& model, Layout layout) {
  ReplicaOptions replica;
  replica.model = model.facts.config;
  replica.model_directory = model.directory;
  replica.layout = layout;
  replica.build_id = BuildId();
  replica.planner.limits = {
      .max_context_tokens = model.facts.max_context_tokens,
      .max_step_tokens = options.max_step_tokens,
      .max_sequences = options.max_sequences,
      .num_blocks = options.num_blocks};
  if (!options.adapters.empty()) {
    replica.planner.limits.max_adapters = options.max_adapters;
    replica.planner.limits.max_adapter_rank = options.max_adapter_rank;
  }
  if (options.transport == "shm") {
    replica.planner.transport = Transport::kSharedMemory;
  } else if (options.transport == "tcp") {
    replica.planner.transport = Transport::kTcp;
  }
  replica.planner.num_threads = options.threads;
  replica.planner.one_shot_max_bytes = options.one_shot_max_kib * 1024;
  replica.max_prefill_chunk_tokens = options.chunk;
  replica.max_prefill_tokens_beside_decode = options.chunk_beside_decode;
  replica.prefix_cache = options.prefix_cache;
  replica.look_ahead = options.look_ahead;
  return replica;
}

// Keeps health, the log and stdout in step with the replicas. Called on their
// threads; the server is set once it listens.
class StateReporter {
 public:
  StateReporter(int num_replicas, std::string model)
      : model_(std::move(model)), last_(num_replicas) {}

  void SetServer(ApiServer* server) {
    MutexLock lock(mutex_);
    server_ = server;
  }

  // False: the server has not started.
  bool OnSnapshot(int replica, const ReplicaSnapshot& snapshot) {
    MutexLock lock(mutex_);
    if (server_ == nullptr) return false;
    Last& last = last_[replica];
    if (last.state == snapshot.state && last.epoch == snapshot.epoch) {
      return true;
    }
    last = {snapshot.state, snapshot.epoch};
    ReplicaState furthest = snapshot.state;
    for (const Last& other : last_) {
      furthest = std::max(furthest, other.state.value_or(furthest));
    }
    server_->OnState(furthest);
    LogInfo("group state", {{"replica", replica},
                            {"state", ReplicaStateName(snapshot.state)},
                            {"epoch", snapshot.epoch},
                            {"reason", snapshot.not_serving_reason},
                            {"last_error", snapshot.last_error}});
    if (snapshot.state == ReplicaState::kServing) SayReady(snapshot);
    return true;
  }

 private:
  struct Last {
    std::optional<ReplicaState> state;
    Epoch epoch = 0;
  };

  void SayReady(const ReplicaSnapshot& snapshot) WITAN_REQUIRES(mutex_) {
    if (was_ready_) return;
    was_ready_ = true;
    fmt::print("ready grpc={} metrics={} model={} tp={} ep={} ranks={}\n",
               server_->grpc_address(), server_->metrics_address(), model_,
               snapshot.layout.tp, snapshot.layout.ep,
               snapshot.layout.num_ranks());
    std::fflush(stdout);
  }

  const std::string model_;
  Mutex mutex_;
  ApiServer* server_ WITAN_GUARDED_BY(mutex_) = nullptr;
  std::vector<Last> last_ WITAN_GUARDED_BY(mutex_);
  bool was_ready_ WITAN_GUARDED_BY(mutex_) = false;
};

int Serve(const Options& options, const ServedModel& model, Layout layout,
          TerminationSignals& signals) {
  ReplicaSetOptions set_options;
  set_options.replica = MakeReplicaOptions(options, model, layout);
  set_options.num_replicas = options.replicas;
  set_options.routing = options.routing == "prefix"
                            ? RoutingPolicy::kPrefix
                            : RoutingPolicy::kRoundRobin;
  absl::Status valid = CheckLayout(set_options.replica.model, layout);
  if (valid.ok()) {
    valid = CheckPlannerOptions(set_options.replica.model,
                                set_options.replica.planner);
  }
  if (!valid.ok()) return Fail(kExitUsage, valid);
  const int64_t num_workers = int64_t{options.replicas} * layout.num_ranks();
  if (num_workers > static_cast<int64_t>(kMaxWorkerLinks)) {
    return Fail(kExitUsage,
                InvalidArgument("--replicas {} of {} ranks each need {} "
                                "workers; at most {} can be connected",
                                options.replicas, layout.num_ranks(),
                                num_workers, kMaxWorkerLinks));
  }
  std::unique_ptr<TraceFile> trace;
  if (!options.trace.empty()) {
    auto created = TraceFile::Create(options.trace, options.replicas);
    if (!created.ok()) return Fail(kExitUsage, created.status());
    trace = *std::move(created);
    set_options.trace = trace.get();
  }
  WorkerLinkService worker_link(model.facts.config.vocab_size,
                                MonotonicClock());
  StateReporter reporter(options.replicas, model.facts.name);
  ReplicaSet replicas(
      set_options, MonotonicClock(),
      [&worker_link](ReplicaOutput output) {
        worker_link.Send(std::move(output));
      },
      [&reporter, &worker_link](int replica, const ReplicaSnapshot& snapshot) {
        if (reporter.OnSnapshot(replica, snapshot)) worker_link.MoveSpare();
      });
  worker_link.SetReplicas(&replicas);
  auto server = ApiServer::Start(
      {.grpc = {.host = options.host, .port = options.port},
       .has_metrics = options.metrics_port >= 0,
       .metrics = {.host = options.host,
                   .port = std::max(options.metrics_port, 0)},
       .insecure_listen = options.insecure_listen,
       .inference = {.max_concurrent_streams = options.max_streams,
                     .num_text_threads = options.text_threads}},
      model, replicas, {&worker_link}, MonotonicClock());
  if (!server.ok()) {
    const bool is_usage =
        server.status().code() != absl::StatusCode::kResourceExhausted;
    return Fail(is_usage ? kExitUsage : kExitResources, server.status());
  }
  reporter.SetServer(server->get());
  fmt::print("listening grpc={} metrics={}\n", (*server)->grpc_address(),
             (*server)->metrics_address());
  std::fflush(stdout);
  signals.Wait();
  LogInfo("shutting down");
  // Ends the open streams with UNAVAILABLE and lets the workers go.
  replicas.Stop("the coordinator is shutting down");
  (*server)->Shutdown(kCallGraceMs);
  return kExitOk;
}

// What a request needs is allocated and freed on different threads. With an
// arena for each of them, as glibc makes them, the process grows by about a
// megabyte an hour under load although the bytes in use stay the same. One lock
// is not felt: most of what is allocated comes from the threads' own caches.
void KeepHeapTogether() { mallopt(M_ARENA_MAX, 1); }

int Main(int argc, char** argv) {
  KeepHeapTogether();
  TerminationSignals signals;
  Options options;
  CLI::App app("Serves a model with the workers that join.",
               "witan-coordinator");
  AddOptions(app, options);
  if (const auto exit_code = ParseCommandLine(app, argc, argv)) {
    return *exit_code;
  }
  const absl::StatusOr<Layout> layout = MakeLayout(options.tp, options.ep);
  if (!layout.ok()) return Fail(kExitUsage, layout.status());
  absl::StatusOr<ServedModel> model =
      LoadServedModel(options.model, options.served_model_name,
                      options.max_context, options.reasoning_markers);
  if (!model.ok()) return Fail(kExitModel, model.status());
  if (!options.adapters.empty()) {
    model->adapters_directory =
        std::filesystem::absolute(options.adapters).string();
    model->facts.has_adapters = true;
    model->max_adapters = options.max_adapters;
  }
  return Serve(options, *model, *layout, signals);
}

}  // namespace
}  // namespace witan

int main(int argc, char** argv) { return witan::Main(argc, argv); }

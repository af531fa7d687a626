#include "cli/serve.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string_view>

#include "base/config.h"
#include "base/limits.h"
#include "base/status.h"
#include "cli/command.h"
#include "cli/output.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/families.h"
#include "model/gguf_model.h"
#include "model/shard_plan.h"

namespace witan {
namespace {

// What a GGUF file's quantised tensors become; nothing without any.
void PrintConversions(const ModelConfig& config, const Checkpoint& checkpoint) {
  std::map<std::string_view, int64_t> num_of_type;
  int64_t num_quantised = 0;
  int64_t num_bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!tensor.conversion) continue;
    int64_t num_elements = 1;
    for (const int64_t size : tensor.shape) num_elements *= size;
    num_bytes += num_elements * static_cast<int64_t>(SizeOf(tensor.dtype));
    const GgmlTypeTraits& stored = TraitsOf(tensor.conversion->stored);
    if (stored.dtype) continue;
    ++num_of_type[stored.name];
    ++num_quantised;
  }
  if (num_quantised == 0) return;
  std::vector<std::string> types;
  for (const auto& [type, num] : num_of_type) {
    types.push_back(fmt::format("{} of {}", num, type));
  }
  fmt::print(
      "{} quantised tensors ({}) are computed with as {}, which takes {:.2f} "
      "GiB of memory in all\n",
      num_quantised, fmt::join(types, ", "), NameOf(config.weights),
      static_cast<double>(num_bytes) / (1 << 30));
  std::fflush(stdout);  // before the processes' lines
}

// The headers of the files alone: what no worker could load is said here, once
// and at once.
absl::Status CheckModel(const std::string& directory) {
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(directory));
  ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(directory));
  RETURN_IF_ERROR(CheckCheckpoint(config, *checkpoint));
  PrintConversions(config, *checkpoint);
  return absl::OkStatus();
}

// Workers have a /metrics where the coordinator has one: at the same address,
// each on a free port that `witan status` tells.
std::vector<std::string> MetricsArguments(const ServeOptions& options) {
  std::vector<std::string> arguments = {"--metrics-port=0"};
  for (const PassedOption& passed : options.passed) {
    if (passed.name == "--metrics-port" && passed.value == "-1") return {};
    if (passed.name == "--host" && passed.value.has_value()) {
      arguments.push_back("--metrics-host=" + *passed.value);
    }
  }
  return arguments;
}

int Run(const ServeOptions& options) {
  auto plan = PlanProcesses(options);
  if (!plan.ok()) return ReportUsage(plan.status());
  const absl::Status model = CheckModel(options.model);
  if (!model.ok()) {
    ReportUsage(model);
    return kExitModel;
  }
  return LocalCluster(*std::move(plan)).Run();
}

// Whoever names a number of workers wants all of them to work, or whole sets of
// them to stand by; other spares are asked for as such.
absl::Status CheckDivides(const char* name, int value, int num_workers,
                          int num_ranks) {
  if (num_workers == num_ranks || num_workers % value == 0) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "{}={} does not divide the {} workers of this cluster; use {}, or start "
      "{} workers (--spares starts more that stand by)",
      name, value, num_workers, DivisorsText(num_workers), num_ranks);
}

absl::StatusOr<int> NumWorkers(const ServeOptions& options,
                               int num_ranks_of_one) {
  if (options.num_replicas < 1 || options.num_replicas > kMaxReplicas) {
    return InvalidArgument("--replicas is {}; allowed is 1 to {}",
                           options.num_replicas, kMaxReplicas);
  }
  const int num_ranks = num_ranks_of_one * options.num_replicas;
  const int num_workers = options.num_workers.value_or(num_ranks);
  if (num_workers < num_ranks || num_workers > kMaxLocalWorkers) {
    return InvalidArgument(
        "--workers {}: tp={} ep={} makes {} ranks{}; use {} to {} workers or "
        "another layout",
        num_workers, options.tp, options.ep, num_ranks,
        options.num_replicas > 1
            ? fmt::format(" in {} replicas", options.num_replicas)
            : "",
        num_ranks, kMaxLocalWorkers);
  }
  RETURN_IF_ERROR(CheckDivides("tp", options.tp, num_workers, num_ranks));
  RETURN_IF_ERROR(CheckDivides("ep", options.ep, num_workers, num_ranks));
  if (options.num_spares < 0 ||
      options.num_spares > kMaxLocalWorkers - num_workers) {
    return InvalidArgument("--spares is {}; allowed is 0 to {}",
                           options.num_spares, kMaxLocalWorkers - num_workers);
  }
  return num_workers + options.num_spares;
}

}  // namespace

std::vector<PassedOption> PassedOptions() {
  const bool worker = true;
  return {
      {.name = "--host", .description = "Address to listen on [127.0.0.1]"},
      {.name = "--port", .description = "gRPC port, 0: any free one [50051]"},
      {.name = "--metrics-port",
       .description =
           "Port of /metrics, 0: any free one, -1: none [9090]; workers take "
           "free ones"},
      {.name = "--served-model-name",
       .description = "Name for clients [the directory's]"},
      {.name = "--reasoning-markers",
       .description = "What is around a thought: BEGIN,END, none, or auto: "
                      "<think> and </think> if the model knows them [auto]"},
      {.name = "--routing",
       .description = "Which replica takes a request: prefix (by cached "
                      "prompts and load) or round-robin [prefix]"},
      {.name = "--transport",
       .description = "Between ranks: auto, shm or tcp [auto]"},
      {.name = "--one-shot-max-kib",
       .description = "Tree sums up to this size take one round [64]"},
      {.name = "--threads",
       .description = "Compute threads of each rank [its share of the cores]"},
      {.name = "--max-context",
       .description = "Tokens of prompt and output together [the model's]"},
      {.name = "--max-step-tokens",
       .description = "Token rows of one step [512]"},
      {.name = "--max-sequences",
       .description = "Sequences computed at once [64]"},
      {.name = "--num-blocks",
       .description = "Blocks of the KV cache [as many as fit]"},
      {.name = "--chunk",
       .description = "Prompt tokens of one sequence in one step [256]"},
      {.name = "--chunk-beside-decode",
       .description = "Prompt tokens of one step beside sequences that are "
                      "being answered, 0: no such bound [128]"},
      {.name = "--prefix-cache",
       .description = "true: keep prompts for requests that begin like them "
                      "[true]"},
      {.name = "--look-ahead",
       .description = "true: send step k+1 while step k runs [true]"},
      {.name = "--adapters",
       .description = "Directory whose folders are LoRA adapters that may be "
                      "loaded by name [none]"},
      {.name = "--max-adapters", .description = "Adapters loaded at once [4]"},
      {.name = "--max-adapter-rank",
       .description = "The largest rank of an adapter [16]"},
      {.name = "--trace",
       .description = "Write what happens when to this file, for "
                      "chrome://tracing or Perfetto [nowhere]"},
      {.name = "--max-streams",
       .description = "Generate and Chat streams open at once, at most seven "
                      "eighths of one tenant [1024]"},
      {.name = "--text-threads",
       .description = "Threads for templates and the tokenizer [2]"},
      {.name = "--cache-dir",
       .description = "Where workers keep hashes of the weights, so that a "
                      "restart does not read them all again [nowhere]",
       .for_workers = worker},
      {.name = "--cpu-path",
       .description = "auto, avx512bf16, avx2 or portable [auto]",
       .for_workers = worker},
      {.name = "--memory",
       .description = "GiB that one worker may use [its share of half "
                      "of what is free]",
       .for_workers = worker},
  };
}

absl::StatusOr<LocalClusterOptions> PlanProcesses(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const Layout layout, MakeLayout(options.tp, options.ep));
  ASSIGN_OR_RETURN(const int num_workers,
                   NumWorkers(options, layout.num_ranks()));
  LocalClusterOptions plan;
  plan.model_name = NameOfModel(options.model);
  plan.num_workers = num_workers;
  plan.binary_folder = OwnBinaryFolder();
  plan.verbose = options.verbose;
  plan.coordinator_arguments = {
      options.model, fmt::format("--tp={}", options.tp),
      fmt::format("--ep={}", options.ep),
      fmt::format("--replicas={}", options.num_replicas)};
  plan.worker_arguments = MetricsArguments(options);
  if (options.insecure_listen) {
    plan.coordinator_arguments.push_back("--insecure-listen");
    plan.worker_arguments.push_back("--insecure-listen");
  }
  for (const PassedOption& passed : options.passed) {
    if (!passed.value.has_value()) continue;
    (passed.for_workers ? plan.worker_arguments : plan.coordinator_arguments)
        .push_back(fmt::format("{}={}", passed.name, *passed.value));
  }
  return plan;
}

Command AddServe(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "serve", "Start a coordinator and workers here and keep them running");
  const auto options = std::make_shared<ServeOptions>();
  app->add_option("MODEL", options->model,
                  "Model directory in Hugging Face's format, or .gguf file")
      ->required();
  app->add_option("--workers", options->num_workers,
                  "Worker processes, a multiple of tp and ep [one per rank]");
  app->add_option("--spares", options->num_spares,
                  "Worker processes beyond these that stand by [0]");
  app->add_option("--tp", options->tp,
                  "Ranks that share attention and vocabulary [1]");
  app->add_option("--ep", options->ep, "Ranks that share the experts [1]");
  app->add_option("--replicas", options->num_replicas,
                  "Copies of the model, each with its own workers [1]");
  app->add_flag("--insecure-listen", options->insecure_listen,
                "Allow a --host that others can reach, in plaintext");
  app->add_flag("--verbose", options->verbose,
                "Show everything that the processes log");
  for (PassedOption& passed : options->passed) {
    app->add_option(passed.name, passed.value, passed.description);
  }
  return {app, [options] { return Run(*options); }};
}

}  // namespace witan

#include "cli/serve.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/config.h"
#include "base/limits.h"
#include "base/status.h"
#include "cli/command.h"
#include "cli/output.h"
#include "model/shard_plan.h"

namespace witan {
namespace {

template <typename T>
void AddFlag(const std::string& name, const std::optional<T>& value,
             std::vector<std::string>* arguments) {
  if (!value.has_value()) return;
  arguments->push_back(name);
  arguments->push_back(fmt::format("{}", *value));
}

// "models/witling/" -> "witling".
std::string ModelName(const std::string& directory) {
  const std::filesystem::path path =
      std::filesystem::path(directory).lexically_normal();
  return path.has_filename() ? path.filename().string()
                             : path.parent_path().filename().string();
}

int Run(const ServeOptions& options) {
  auto plan = PlanProcesses(options);
  if (!plan.ok()) return ReportUsage(plan.status());
  return LocalCluster(*std::move(plan)).Run();
}

}  // namespace

absl::StatusOr<LocalClusterOptions> PlanProcesses(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const Layout layout, MakeLayout(options.tp, options.ep));
  const int num_ranks = layout.num_ranks();
  const int num_workers = options.num_workers.value_or(num_ranks);
  if (num_workers < num_ranks || num_workers > kMaxLocalWorkers) {
    return InvalidArgument(
        "--workers {}: tp={} ep={} needs {} ranks; use {} to {} workers (those "
        "beyond {} stand by)",
        num_workers, options.tp, options.ep, num_ranks, num_ranks,
        kMaxLocalWorkers, num_ranks);
  }
  LocalClusterOptions plan;
  plan.model_name = ModelName(options.model);
  plan.num_workers = num_workers;
  plan.num_ranks = num_ranks;
  plan.binary_folder = OwnBinaryFolder();
  plan.verbose = options.verbose;
  auto& coordinator = plan.coordinator_arguments;
  coordinator = {options.model,
                 "--tp",
                 fmt::format("{}", options.tp),
                 "--ep",
                 fmt::format("{}", options.ep),
                 "--port",
                 fmt::format("{}", options.port),
                 "--metrics-port",
                 fmt::format("{}", options.metrics_port),
                 "--listen",
                 options.listen,
                 "--transport",
                 options.transport};
  if (options.insecure_listen) coordinator.push_back("--insecure-listen");
  AddFlag("--threads", options.num_threads, &coordinator);
  AddFlag("--max-context-tokens", options.max_context_tokens, &coordinator);
  AddFlag("--max-step-tokens", options.max_step_tokens, &coordinator);
  AddFlag("--max-sequences", options.max_sequences, &coordinator);
  auto& worker = plan.worker_arguments;
  worker = {"--cpu-path", options.cpu_path, "--metrics-port", "0"};
  AddFlag("--memory-bytes", options.memory_bytes, &worker);
  return plan;
}

Command AddServe(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "serve", "Start a coordinator and workers here and keep them running");
  const auto options = std::make_shared<ServeOptions>();
  ServeOptions& o = *options;
  app->add_option("MODEL", o.model, "Model directory in Hugging Face's format")
      ->required();
  app->add_option("--workers", o.num_workers,
                  "Worker processes; default: one per rank");
  app->add_option("--tp", o.tp, "Ranks that share attention and vocabulary")
      ->capture_default_str();
  app->add_option("--ep", o.ep, "Ranks that share the experts")
      ->capture_default_str();
  app->add_option("--port", o.port, "gRPC port; 0 takes a free one")
      ->capture_default_str();
  app->add_option("--metrics-port", o.metrics_port,
                  "HTTP port of /metrics; 0 takes a free one")
      ->capture_default_str();
  app->add_option("--listen", o.listen, "Address to listen on")
      ->capture_default_str();
  app->add_flag("--insecure-listen", o.insecure_listen,
                "Allow an address that others can reach, in plaintext");
  app->add_option("--transport", o.transport, "Between ranks: auto, shm or tcp")
      ->capture_default_str();
  app->add_option("--cpu-path", o.cpu_path,
                  "auto, avx512bf16, avx2 or portable")
      ->capture_default_str();
  app->add_option("--threads", o.num_threads,
                  "Threads of one rank; default: its share of the cores");
  app->add_option("--max-context-tokens", o.max_context_tokens,
                  "Prompt and output of one sequence; default: the model's");
  app->add_option("--max-step-tokens", o.max_step_tokens,
                  "Tokens computed in one step");
  app->add_option("--max-sequences", o.max_sequences,
                  "Sequences that run at once");
  app->add_option("--memory-bytes", o.memory_bytes,
                  "Memory that one worker may use");
  app->add_flag("--verbose", o.verbose,
                "Show everything that the processes log");
  return {app, [options] { return Run(*options); }};
}

}  // namespace witan

#include "cli/status.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>

#include "base/config.h"
#include "base/limits.h"
#include "cli/client.h"
#include "cli/command.h"
#include "proto/cluster.grpc.pb.h"

namespace witan {
namespace {

struct Options {
  std::string server;
  bool json = false;
};

nlohmann::ordered_json WorkerJson(const v1::WorkerStatus& worker) {
  nlohmann::ordered_json json;
  json["worker_id"] = worker.worker_id();
  json["state"] = NameOf(worker.state());
  json["replica"] = worker.replica();
  json["rank"] = worker.has_rank() ? nlohmann::ordered_json(worker.rank())
                                   : nlohmann::ordered_json();
  json["host_name"] = worker.host_name();
  json["process_id"] = worker.process_id();
  json["device"] = worker.device();
  json["cpu_path"] = worker.cpu_path();
  json["num_cores"] = worker.num_cores();
  json["memory_bytes"] = worker.memory_bytes();
  json["load_done_bytes"] = worker.load_done_bytes();
  json["load_total_bytes"] = worker.load_total_bytes();
  json["weights_bytes"] = worker.weights_bytes();
  json["kv_bytes"] = worker.kv_bytes();
  json["last_step"] = {
      {"total_us", worker.last_step().total_us()},
      {"communication_us", worker.last_step().communication_us()},
      {"wait_us", worker.last_step().wait_us()}};
  json["last_heard_ms"] = worker.last_heard_ms();
  json["metrics_address"] = worker.metrics_address();
  return json;
}

// "3", with several replicas "1/3": replica and rank.
std::string WorkerPlace(const v1::WorkerStatus& worker, bool with_replica) {
  const std::string rank =
      worker.has_rank() ? fmt::format("{}", worker.rank()) : "-";
  if (!with_replica) return rank;
  return fmt::format("{}/{}", worker.replica(), rank);
}

nlohmann::ordered_json SchedulerJson(const v1::SchedulerStatus& scheduler) {
  return {{"running_sequences", scheduler.running_sequences()},
          {"waiting_sequences", scheduler.waiting_sequences()},
          {"max_sequences", scheduler.max_sequences()},
          {"used_blocks", scheduler.used_blocks()},
          {"total_blocks", scheduler.total_blocks()},
          {"block_tokens", scheduler.block_tokens()},
          {"paused_sequences", scheduler.paused_sequences()},
          {"preemptions", scheduler.preemptions()},
          {"prefix_lookup_tokens", scheduler.prefix_lookup_tokens()},
          {"prefix_hit_tokens", scheduler.prefix_hit_tokens()},
          {"steps", scheduler.steps()}};
}

int Run(const Options& options) {
  const auto stub = v1::Cluster::NewStub(MakeClientChannel(options.server));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(kStatusCallTimeoutMs));
  v1::StatusResponse response;
  const grpc::Status status =
      stub->Status(&context, v1::StatusRequest(), &response);
  if (!status.ok()) return ReportError(status, options.server);
  fmt::print("{}",
             options.json ? ToJson(response).dump() + "\n" : ToText(response));
  return kExitOk;
}

}  // namespace

std::string_view NameOf(v1::GroupState state) {
  switch (state) {
    case v1::GROUP_STATE_WAITING_FOR_WORKERS:
      return "waiting for workers";
    case v1::GROUP_STATE_LOADING:
      return "loading";
    case v1::GROUP_STATE_CONNECTING:
      return "connecting";
    case v1::GROUP_STATE_SERVING:
      return "serving";
    case v1::GROUP_STATE_REFUSED:
      return "refused";
    default:
      return "unknown";
  }
}

std::string_view NameOf(v1::WorkerState state) {
  switch (state) {
    case v1::WORKER_STATE_SPARE:
      return "spare";
    case v1::WORKER_STATE_LOADING:
      return "loading";
    case v1::WORKER_STATE_PREPARED:
      return "prepared";
    case v1::WORKER_STATE_SERVING:
      return "serving";
    default:
      return "unknown";
  }
}

nlohmann::ordered_json ToJson(const v1::StatusResponse& status) {
  nlohmann::ordered_json json;
  json["model"] = status.model();
  json["model_directory"] = status.model_directory();
  json["state"] = NameOf(status.state());
  json["state_reason"] = status.state_reason();
  json["epoch"] = status.epoch();
  json["tp"] = status.tp();
  json["ep"] = status.ep();
  json["num_ranks"] = status.num_ranks();
  json["transport"] = status.transport();
  json["max_context_tokens"] = status.max_context_tokens();
  json["max_step_tokens"] = status.max_step_tokens();
  auto& workers = json["workers"] = nlohmann::ordered_json::array();
  for (const v1::WorkerStatus& worker : status.workers()) {
    workers.push_back(WorkerJson(worker));
  }
  auto& lost_workers = json["lost_workers"] = nlohmann::ordered_json::array();
  for (const v1::LostWorker& worker : status.lost_workers()) {
    lost_workers.push_back({{"worker_id", worker.worker_id()},
                            {"host_name", worker.host_name()},
                            {"process_id", worker.process_id()},
                            {"cause", worker.cause()}});
  }
  json["scheduler"] = SchedulerJson(status.scheduler());
  // Counted for all replicas together.
  json["scheduler"]["prompt_tokens"] = status.scheduler().prompt_tokens();
  json["scheduler"]["generated_tokens"] = status.scheduler().generated_tokens();
  auto& replicas = json["replicas"] = nlohmann::ordered_json::array();
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    replicas.push_back({{"state", NameOf(replica.state())},
                        {"state_reason", replica.state_reason()},
                        {"epoch", replica.epoch()},
                        {"transport", replica.transport()},
                        {"scheduler", SchedulerJson(replica.scheduler())}});
  }
  json["weights_id"] = status.weights_id();
  json["numerics_id"] = status.numerics_id();
  json["build_id"] = status.build_id();
  json["grpc_address"] = status.grpc_address();
  json["metrics_address"] = status.metrics_address();
  json["uptime_seconds"] = status.uptime_seconds();
  return json;
}

std::string ToText(const v1::StatusResponse& status) {
  const v1::SchedulerStatus& scheduler = status.scheduler();
  std::string text = fmt::format(
      "{}: {}{}{}\n", status.model(), NameOf(status.state()),
      status.state_reason().empty() ? "" : ", ", status.state_reason());
  text += fmt::format("layout      tp={} ep={}, {} ranks over {}, epoch {}\n",
                      status.tp(), status.ep(), status.num_ranks(),
                      status.transport(), status.epoch());
  text +=
      fmt::format("requests    {} running, {} waiting, at most {} at once\n",
                  scheduler.running_sequences(), scheduler.waiting_sequences(),
                  scheduler.max_sequences());
  text += fmt::format("KV blocks   {} of {} used, {} tokens each\n",
                      scheduler.used_blocks(), scheduler.total_blocks(),
                      scheduler.block_tokens());
  if (scheduler.prefix_lookup_tokens() > 0) {
    text += fmt::format("prefixes    {} of {} prompt tokens were cached\n",
                        scheduler.prefix_hit_tokens(),
                        scheduler.prefix_lookup_tokens());
  }
  text += fmt::format(
      "so far      {} steps, {} prompt and {} generated tokens, "
      "{} preemptions\n",
      scheduler.steps(), scheduler.prompt_tokens(),
      scheduler.generated_tokens(), scheduler.preemptions());
  text +=
      fmt::format("identity    weights {:.12} numerics {:.12} build {}\n",
                  status.weights_id(), status.numerics_id(), status.build_id());
  text += fmt::format(
      "listening   gRPC {} metrics {}\n", status.grpc_address(),
      status.metrics_address().empty() ? "off" : status.metrics_address());
  for (int i = 0; status.replicas_size() > 1 && i < status.replicas_size();
       ++i) {
    const v1::ReplicaStatus& replica = status.replicas(i);
    text += fmt::format(
        "replica {}   {}{}{}, epoch {}, {} running, {} waiting, {} of {} "
        "blocks used\n",
        i, NameOf(replica.state()), replica.state_reason().empty() ? "" : ", ",
        replica.state_reason(), replica.epoch(),
        replica.scheduler().running_sequences(),
        replica.scheduler().waiting_sequences(),
        replica.scheduler().used_blocks(), replica.scheduler().total_blocks());
  }
  for (const v1::LostWorker& worker : status.lost_workers()) {
    text += fmt::format("went away   worker {} (pid {} on host {}): {}\n",
                        worker.worker_id(), worker.process_id(),
                        worker.host_name(), worker.cause());
  }
  if (status.workers().empty()) return text;
  text +=
      "rank  state     host             pid      path             weights     "
      "last step    metrics\n";
  for (const v1::WorkerStatus& worker : status.workers()) {
    text += fmt::format(
        "{:<5} {:<9} {:<16} {:<8} {:<14} {:>9.1f} MB  {:<12} {}\n",
        WorkerPlace(worker, status.replicas_size() > 1), NameOf(worker.state()),
        worker.host_name(), worker.process_id(), worker.cpu_path(),
        static_cast<double>(worker.weights_bytes()) / 1e6,
        fmt::format("{:.2f} ms",
                    static_cast<double>(worker.last_step().total_us()) / 1000),
        worker.metrics_address().empty() ? "off" : worker.metrics_address());
  }
  return text;
}

Command AddStatus(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "status", "Say what a cluster is doing, for people or with --json");
  const auto options = std::make_shared<Options>();
  AddServerOption(*app, &options->server);
  app->add_flag("--json", options->json, "Print one JSON object")
      ->configurable(false);
  return {app, [options] { return Run(*options); }};
}

}  // namespace witan

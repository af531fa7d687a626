// witan adapter: loads and unloads LoRA adapters of a running cluster.

#include <fmt/format.h>
#include <grpcpp/client_context.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/config.h"
#include "cli/client.h"
#include "cli/command.h"
#include "proto/cluster.grpc.pb.h"

namespace witan {
namespace {

struct Options {
  std::string server;
  std::string name;
  bool json = false;
};

const char* NameOf(v1::AdapterState state) {
  switch (state) {
    case v1::ADAPTER_STATE_LOADING:
      return "loading";
    case v1::ADAPTER_STATE_READY:
      return "ready";
    case v1::ADAPTER_STATE_DRAINING:
      return "draining";
    default:
      return "unknown";
  }
}

std::unique_ptr<v1::Cluster::Stub> StubOf(const Options& options) {
  return v1::Cluster::NewStub(MakeClientChannel(options.server));
}

// Empty if it cannot be had.
v1::StatusResponse StatusOf(const Options& options) {
  grpc::ClientContext context;
  v1::StatusResponse response;
  const grpc::Status status =
      StubOf(options)->Status(&context, v1::StatusRequest(), &response);
  return status.ok() ? response : v1::StatusResponse();
}

int Load(const Options& options) {
  grpc::ClientContext context;
  v1::LoadAdapterRequest request;
  request.set_name(options.name);
  v1::LoadAdapterResponse response;
  const grpc::Status status =
      StubOf(options)->LoadAdapter(&context, request, &response);
  if (!status.ok()) return ReportError(status, options.server);
  fmt::print("{} is loaded; use it with --model {}\n", options.name,
             options.name);
  return kExitOk;
}

int Unload(const Options& options) {
  grpc::ClientContext context;
  v1::UnloadAdapterRequest request;
  request.set_name(options.name);
  v1::UnloadAdapterResponse response;
  const grpc::Status status =
      StubOf(options)->UnloadAdapter(&context, request, &response);
  if (!status.ok()) return ReportError(status, options.server);
  const v1::StatusResponse now = StatusOf(options);
  for (const v1::AdapterStatus& adapter : now.adapters()) {
    if (adapter.name() != options.name) continue;
    fmt::print("{} takes no more requests and goes after those that run ({})\n",
               options.name, adapter.running_sequences());
    return kExitOk;
  }
  fmt::print("{} is unloaded\n", options.name);
  return kExitOk;
}

int List(const Options& options) {
  grpc::ClientContext context;
  v1::StatusResponse response;
  const grpc::Status status =
      StubOf(options)->Status(&context, v1::StatusRequest(), &response);
  if (!status.ok()) return ReportError(status, options.server);
  if (options.json) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const v1::AdapterStatus& adapter : response.adapters()) {
      json.push_back({{"name", adapter.name()},
                      {"state", NameOf(adapter.state())},
                      {"rank", adapter.rank()},
                      {"running_sequences", adapter.running_sequences()},
                      {"content_hash", adapter.content_hash()}});
    }
    fmt::print("{}\n", json.dump());
    return kExitOk;
  }
  if (response.max_adapters() == 0) {
    fmt::print(
        "this cluster serves no adapters; start it with --adapters "
        "DIRECTORY\n");
    return kExitOk;
  }
  fmt::print("{} of {} adapters\n", response.adapters_size(),
             response.max_adapters());
  for (const v1::AdapterStatus& adapter : response.adapters()) {
    fmt::print("  {:<24} {:<9} rank {:<4} {} running\n", adapter.name(),
               NameOf(adapter.state()), adapter.rank(),
               adapter.running_sequences());
  }
  return kExitOk;
}

}  // namespace

Command AddAdapter(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "adapter", "Load and unload LoRA adapters of a running cluster");
  app->require_subcommand(1);
  const auto options = std::make_shared<Options>();
  CLI::App* load = app->add_subcommand(
      "load", "Load an adapter of the coordinator's --adapters directory");
  CLI::App* unload = app->add_subcommand(
      "unload", "Take no more requests for an adapter, then forget it");
  CLI::App* list = app->add_subcommand("list", "Show what is loaded");
  for (CLI::App* one : {load, unload, list}) {
    AddServerOption(*one, &options->server);
  }
  for (CLI::App* one : {load, unload}) {
    one->add_option("NAME", options->name, "Folder of the adapter")->required();
  }
  list->add_flag("--json", options->json, "One JSON array")
      ->configurable(false);
  return {app, [options, load, unload] {
            if (load->parsed()) return Load(*options);
            if (unload->parsed()) return Unload(*options);
            return List(*options);
          }};
}

}  // namespace witan

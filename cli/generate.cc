#include <fmt/format.h>
#include <grpcpp/client_context.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/config.h"
#include "base/status.h"
#include "cli/client.h"
#include "cli/command.h"
#include "cli/generation.h"
#include "cli/generation_options.h"
#include "cli/output.h"
#include "proto/inference.grpc.pb.h"

namespace witan {
namespace {

struct Options {
  GenerationOptions generation;
  std::string prompt;
};

int Run(const Options& options) {
  const GenerationOptions& generation = options.generation;
  v1::GenerateRequest request;
  const auto parameters = MakeParameters(generation);
  if (!parameters.ok()) return ReportUsage(parameters.status());
  *request.mutable_parameters() = *parameters;
  request.set_text(options.prompt);
  if (generation.model) request.set_model(*generation.model);
  if (generation.request_id) request.set_request_id(*generation.request_id);
  if (generation.tenant) request.set_tenant(*generation.tenant);
  if (generation.priority) request.set_priority(*generation.priority);

  const auto stub =
      v1::Inference::NewStub(MakeClientChannel(generation.server));
  grpc::ClientContext context;
  const auto stream = stub->Generate(&context, request);
  GenerationResult result;
  const grpc::Status status = Receive(context, *stream, NumChoices(generation),
                                      TextOutput(generation), &result);
  return PrintEnd(status, generation, result);
}

}  // namespace

Command AddGenerate(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "generate", "Continue a prompt and stream the text");
  const auto options = std::make_shared<Options>();
  app->add_option("--prompt", options->prompt, "Text to continue")
      ->required()
      ->check(CheckUtf8);
  AddGenerationOptions(*app, &options->generation);
  return {app, [options] { return Run(*options); }};
}

}  // namespace witan

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

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
  std::optional<std::string> message;
  std::optional<std::string> system;
  std::vector<std::string> template_arguments;  // NAME=VALUE
};

// A conversation with one server; the request holds the messages so far.
class Conversation {
 public:
  Conversation(const GenerationOptions& options, v1::ChatRequest request)
      : options_(options),
        request_(std::move(request)),
        stub_(v1::Inference::NewStub(MakeClientChannel(options.server))) {}

  // Asks, streams the answer and keeps both; a failed turn is forgotten.
  // Returns an exit code.
  int Say(const std::string& text) {
    v1::ChatMessage* message = request_.add_messages();
    message->set_role("user");
    message->set_content(text);
    grpc::ClientContext context;
    const auto stream = stub_->Chat(&context, request_);
    GenerationResult result;
    const grpc::Status status = Receive(context, *stream, NumChoices(options_),
                                        TextOutput(options_), &result);
    const int code = PrintEnd(status, options_, result);
    if (code != kExitOk) {
      request_.mutable_messages()->RemoveLast();
      return code;
    }
    message = request_.add_messages();
    message->set_role("assistant");
    const ChoiceResult& answer = result.choices.front();
    message->set_content(answer.text);
    if (!answer.reasoning.empty()) {
      message->set_reasoning_content(answer.reasoning);
    }
    return code;
  }

  void Forget() {
    const bool has_system =
        request_.messages_size() > 0 && request_.messages(0).role() == "system";
    request_.mutable_messages()->DeleteSubrange(
        has_system ? 1 : 0, request_.messages_size() - (has_system ? 1 : 0));
  }

 private:
  const GenerationOptions& options_;
  v1::ChatRequest request_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

// Reads messages from stdin until its end or /bye.
int Converse(Conversation& conversation) {
  const bool prompts = isatty(STDIN_FILENO) != 0;
  if (prompts) {
    fmt::print(stderr, "/clear forgets the conversation, /bye ends it\n");
  }
  int code = kExitOk;
  std::string line;
  while (true) {
    if (prompts) fmt::print(stderr, ">>> ");
    if (!std::getline(std::cin, line) || line == "/bye") break;
    if (line == "/clear") {
      conversation.Forget();
    } else if (line.starts_with('/')) {
      fmt::print(stderr,
                 "unknown command \"{}\"; /clear forgets the "
                 "conversation, /bye ends it\n",
                 line);
    } else if (!line.empty()) {
      code = conversation.Say(line);
    }
  }
  return code;
}

int Run(const Options& options) {
  const GenerationOptions& generation = options.generation;
  v1::ChatRequest request;
  const auto parameters = MakeParameters(generation);
  if (!parameters.ok()) return ReportUsage(parameters.status());
  *request.mutable_parameters() = *parameters;
  if (generation.model) request.set_model(*generation.model);
  if (generation.request_id) request.set_request_id(*generation.request_id);
  if (generation.tenant) request.set_tenant(*generation.tenant);
  if (generation.priority) request.set_priority(*generation.priority);
  for (const std::string& text : options.template_arguments) {
    const auto argument = SplitAssignment("template-arg", text);
    if (!argument.ok()) return ReportUsage(argument.status());
    (*request.mutable_template_arguments())[argument->first] = argument->second;
  }
  if (options.system) {
    v1::ChatMessage* system = request.add_messages();
    system->set_role("system");
    system->set_content(*options.system);
  }
  if (options.message && options.message->empty()) {
    return ReportUsage(InvalidArgument("--message is empty; say something"));
  }
  Conversation conversation(generation, std::move(request));
  return options.message ? conversation.Say(*options.message)
                         : Converse(conversation);
}

}  // namespace

Command AddChat(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "chat", "Ask once with --message, or converse line by line");
  const auto options = std::make_shared<Options>();
  app->add_option("--message", options->message, "Say this and end")
      ->check(CheckUtf8);
  app->add_option("--system", options->system, "System message")
      ->check(CheckUtf8);
  app->add_option("--template-arg", options->template_arguments,
                  "NAME=VALUE for the chat template; may be repeated")
      ->allow_extra_args(false);
  AddGenerationOptions(*app, &options->generation);
  return {app, [options] { return Run(*options); }};
}

}  // namespace witan

#include "cli/client.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/config.h"
#include "base/limits.h"
#include "net/address.h"
#include "net/channel.h"

namespace witan {
namespace {

// gRPC's own words for a server that could not be reached; a server's words
// never start like this.
bool IsUnreachable(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE &&
         status.error_message().find("onnect") != std::string::npos &&
         status.error_details().empty();
}

}  // namespace

const char* NameOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return "OK";
    case grpc::StatusCode::CANCELLED:
      return "CANCELLED";
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "DEADLINE_EXCEEDED";
    case grpc::StatusCode::NOT_FOUND:
      return "NOT_FOUND";
    case grpc::StatusCode::ALREADY_EXISTS:
      return "ALREADY_EXISTS";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "RESOURCE_EXHAUSTED";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "UNIMPLEMENTED";
    case grpc::StatusCode::UNAVAILABLE:
      return "UNAVAILABLE";
    case grpc::StatusCode::DATA_LOSS:
      return "DATA_LOSS";
    case grpc::StatusCode::INTERNAL:
      return "INTERNAL";
    default:
      return "UNKNOWN";
  }
}

void AddServerOption(CLI::App& app, std::string* server) {
  *server = kDefaultServer;
  app.add_option("--server", *server, "HOST:PORT of the coordinator")
      ->check(CheckHostPort)
      ->capture_default_str();
}

std::shared_ptr<grpc::Channel> MakeClientChannel(const std::string& server) {
  return MakeChannel(server, {.max_receive_bytes = kMaxClientReceiveBytes});
}

std::string DescribeError(const grpc::Status& status,
                          const std::string& server) {
  if (IsUnreachable(status)) {
    return fmt::format(
        "cannot reach a coordinator at {}: {}; start one with `witan serve "
        "MODEL` or name another with --server HOST:PORT",
        server, status.error_message());
  }
  return fmt::format("{} from {}: {}", NameOf(status.error_code()), server,
                     status.error_message());
}

int ExitCodeOf(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return kExitOk;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::ALREADY_EXISTS:
      return kExitUsage;
    case grpc::StatusCode::FAILED_PRECONDITION:
      return kExitModel;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return kExitResources;
    case grpc::StatusCode::UNAVAILABLE:
      return kExitPeerLost;
    default:
      return kExitInternal;
  }
}

int ReportError(const grpc::Status& status, const std::string& server) {
  fmt::print(stderr, "error: {}\n", DescribeError(status, server));
  return ExitCodeOf(status);
}

}  // namespace witan

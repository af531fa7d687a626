#ifndef WITAN_CLI_CLIENT_H_
#define WITAN_CLI_CLIENT_H_

// What the verbs that talk to a server share.

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

namespace CLI {
class App;
}

namespace witan {

constexpr char kDefaultServer[] = "127.0.0.1:50051";

// --server, into `server`.
void AddServerOption(CLI::App& app, std::string* server);

// Connects on first use.
std::shared_ptr<grpc::Channel> MakeClientChannel(const std::string& server);

// "OK", "UNAVAILABLE" ...; "UNKNOWN" for what servers of ours never send.
const char* NameOf(grpc::StatusCode code);

// The message for people: what failed, where, and what to do about it.
std::string DescribeError(const grpc::Status& status,
                          const std::string& server);

// Exit code of base/config.h for a failed call.
int ExitCodeOf(const grpc::Status& status);

// Prints DescribeError to stderr and returns ExitCodeOf.
int ReportError(const grpc::Status& status, const std::string& server);

}  // namespace witan

#endif  // WITAN_CLI_CLIENT_H_

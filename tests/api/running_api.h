#ifndef WITAN_TESTS_API_RUNNING_API_H_
#define WITAN_TESTS_API_RUNNING_API_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "coordinator/api/api_server.h"
#include "net/channel.h"
#include "proto/inference.grpc.pb.h"
#include "tests/api/fake_engine.h"
#include "tests/testing/tiny_model.h"

namespace witan {

// abcdef...zabc...
inline SampledToken NextLetter(int choice, int64_t index) {
  SampledToken token;
  token.token_id =
      static_cast<TokenId>(kTinyFirstByteToken + 'a' + (index + choice) % 26);
  return token;
}

// How a stream ended and what it held.
struct StreamResult {
  grpc::Status status;
  std::vector<v1::GenerateResponse> chunks;
  std::map<std::string, std::string> trailers;

  std::string Text() const {
    std::string text;
    for (const auto& chunk : chunks) text += chunk.text();
    return text;
  }
  int NumTokens() const {
    int count = 0;
    for (const auto& chunk : chunks) count += chunk.token_ids_size();
    return count;
  }
};

inline StreamResult ReadStream(
    grpc::ClientContext& context,
    grpc::ClientReaderInterface<v1::GenerateResponse>& reader) {
  StreamResult result;
  for (v1::GenerateResponse chunk; reader.Read(&chunk);) {
    result.chunks.push_back(chunk);
  }
  result.status = reader.Finish();
  for (const auto& [name, value] : context.GetServerTrailingMetadata()) {
    result.trailers.emplace(std::string(name.data(), name.size()),
                            std::string(value.data(), value.size()));
  }
  return result;
}

struct RunningApiOptions {
  FakeEngine::NextTokenFn next_token = NextLetter;
  int max_streams = 100;
  int num_text_threads = 2;
};

// The whole API of a tiny model on a free port, with an engine that makes
// scripted tokens.
class RunningApi {
 public:
  explicit RunningApi(const std::string& model_directory,
                      RunningApiOptions options = {}) {
    model_ = std::make_unique<ServedModel>(
        LoadServedModel(model_directory, "tiny", 0).value());
    engine_ = std::make_unique<FakeEngine>(std::move(options.next_token));
    ApiServerOptions server_options;
    server_options.has_metrics = true;
    server_options.inference = {.max_concurrent_streams = options.max_streams,
                                .num_text_threads = options.num_text_threads};
    server_ = ApiServer::Start(server_options, *model_, *engine_, {},
                               MonotonicClock())
                  .value();
    server_->OnState(ReplicaState::kServing);
    inference_ = v1::Inference::NewStub(
        MakeChannel(server_->grpc_address(), {.max_receive_bytes = 64 << 20}));
  }

  // The stream's sinks call the server's objects: end the streams first.
  ~RunningApi() {
    server_->Shutdown(0);
    engine_.reset();
    server_.reset();
  }

  RunningApi(const RunningApi&) = delete;
  RunningApi& operator=(const RunningApi&) = delete;

  FakeEngine& engine() { return *engine_; }
  ApiServer& server() { return *server_; }
  v1::Inference::Stub& inference() { return *inference_; }

  // The text of /metrics.
  std::string Scrape() const {
    const std::string address = server_->metrics_address();
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(
        std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    const std::string request =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), 0),
              static_cast<ssize_t>(request.size()));
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      text.append(buffer, static_cast<size_t>(n));
    }
    close(fd);
    return text;
  }

  StreamResult Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, request);
    return ReadStream(context, *reader);
  }
  StreamResult Chat(const v1::ChatRequest& request) {
    grpc::ClientContext context;
    const auto reader = inference_->Chat(&context, request);
    return ReadStream(context, *reader);
  }

 private:
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<ApiServer> server_;
  std::unique_ptr<v1::Inference::Stub> inference_;
};

inline v1::GenerateRequest APrompt(int64_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text("hello");
  request.mutable_parameters()->set_max_tokens(max_tokens);
  return request;
}

}  // namespace witan

#endif  // WITAN_TESTS_API_RUNNING_API_H_

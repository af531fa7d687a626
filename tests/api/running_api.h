#ifndef WITAN_TESTS_API_RUNNING_API_H_
#define WITAN_TESTS_API_RUNNING_API_H_

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/api/api_server.h"
#include "net/channel.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "tests/api/fake_engine.h"
#include "tests/testing/tiny_model.h"

namespace witan {

inline TokenId Letter(char c) { return kTinyFirstByteToken + c; }

// abcdef...zabc..., each with a log-probability that names its index.
inline SampledToken NextLetter(int choice, int64_t index) {
  SampledToken token;
  token.token_id = Letter(static_cast<char>('a' + (index + choice) % 26));
  token.logprob = -static_cast<float>(index) - 1;
  token.top_logprobs = {{.token_id = token.token_id, .logprob = token.logprob},
                        {.token_id = 0, .logprob = token.logprob - 1}};
  return token;
}

// What a stream held of one choice.
struct Choice {
  std::string prompt_text;
  std::vector<TokenId> prompt_ids;
  std::vector<v1::TokenLogprobs> prompt_logprobs;
  std::string reasoning;
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<float> logprobs;
  v1::GenerateResponse last;  // the chunk that ended it
  bool ended = false;
};

// How a stream ended and what it held.
struct StreamResult {
  grpc::Status status;
  std::vector<v1::GenerateResponse> chunks;
  std::map<std::string, std::string> trailers;
  // Every index came exactly once, in order.
  std::map<int, Choice> choices;

  std::string pushback() const {
    const auto found = trailers.find("grpc-retry-pushback-ms");
    return found == trailers.end() ? "" : found->second;
  }
  std::string request_id() const {
    return chunks.empty() ? "" : chunks.front().request_id();
  }
  int NumTokens() const {
    int count = 0;
    for (const auto& chunk : chunks) count += chunk.token_ids_size();
    return count;
  }
};

inline void AddTo(Choice& choice, const v1::GenerateResponse& chunk) {
  EXPECT_FALSE(choice.ended) << "a chunk after the last one";
  EXPECT_EQ(chunk.token_index(), static_cast<int64_t>(choice.token_ids.size()));
  if (chunk.has_prompt()) {
    EXPECT_TRUE(choice.token_ids.empty()) << "a prompt behind its output";
    EXPECT_EQ(chunk.prompt().index(), std::ssize(choice.prompt_ids));
    EXPECT_LE(chunk.prompt().token_ids_size(), kMaxChunkTokens);
    choice.prompt_text += chunk.prompt().text();
    choice.prompt_ids.insert(choice.prompt_ids.end(),
                             chunk.prompt().token_ids().begin(),
                             chunk.prompt().token_ids().end());
    choice.prompt_logprobs.insert(choice.prompt_logprobs.end(),
                                  chunk.prompt().logprobs().begin(),
                                  chunk.prompt().logprobs().end());
  }
  EXPECT_TRUE(choice.text.empty() || chunk.reasoning().empty());
  choice.reasoning += chunk.reasoning();
  choice.text += chunk.text();
  choice.token_ids.insert(choice.token_ids.end(), chunk.token_ids().begin(),
                          chunk.token_ids().end());
  for (const v1::TokenLogprobs& logprobs : chunk.logprobs()) {
    choice.logprobs.push_back(logprobs.logprob());
  }
  if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
    choice.ended = true;
    choice.last = chunk;
  }
}

inline StreamResult ReadStream(
    grpc::ClientContext& context,
    grpc::ClientReaderInterface<v1::GenerateResponse>& reader) {
  StreamResult result;
  for (v1::GenerateResponse chunk; reader.Read(&chunk);) {
    AddTo(result.choices[chunk.choice()], chunk);
    result.chunks.push_back(chunk);
  }
  result.status = reader.Finish();
  for (const auto& [name, value] : context.GetServerTrailingMetadata()) {
    result.trailers.emplace(std::string(name.data(), name.size()),
                            std::string(value.data(), value.size()));
  }
  return result;
}

// A unary call with bytes of our own making.
inline grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel,
                            const std::string& method,
                            const std::string& request, std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  const grpc::Slice slice(request);
  const grpc::ByteBuffer in(&slice, 1);
  grpc::ByteBuffer out;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, method, grpc::StubOptions(), &in, &out,
                 [&done](grpc::Status status) { done.set_value(status); });
  const grpc::Status status = done.get_future().get();
  grpc::Slice joined;
  if (response != nullptr && out.DumpToSingleSlice(&joined).ok()) {
    response->assign(reinterpret_cast<const char*>(joined.begin()),
                     joined.size());
  }
  return status;
}

struct RunningApiOptions {
  FakeEngine::NextTokenFn next_token = NextLetter;
  int max_streams = 100;
  int num_text_threads = 2;
  std::string adapters_directory;
  const Clock* clock = &MonotonicClock();  // outlives the API
};

// The whole API of a tiny model on a free port, with an engine that makes
// scripted tokens.
class RunningApi {
 public:
  explicit RunningApi(const std::string& model_directory,
                      RunningApiOptions options = {}) {
    model_ = std::make_unique<ServedModel>(
        LoadServedModel(model_directory, "tiny", 0).value());
    model_->adapters_directory = options.adapters_directory;
    model_->facts.has_adapters = !options.adapters_directory.empty();
    model_->max_adapters = 2;
    engine_ = std::make_unique<FakeEngine>(std::move(options.next_token));
    ApiServerOptions server_options;
    server_options.has_metrics = true;
    server_options.inference = {.max_concurrent_streams = options.max_streams,
                                .num_text_threads = options.num_text_threads};
    server_ =
        ApiServer::Start(server_options, *model_, *engine_, {}, *options.clock)
            .value();
    server_->OnState(ReplicaState::kServing);
    channel_ =
        MakeChannel(server_->grpc_address(), {.max_receive_bytes = 64 << 20});
    inference_ = v1::Inference::NewStub(channel_);
    cluster_ = v1::Cluster::NewStub(channel_);
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
  const ServedModel& model() const { return *model_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::Inference::Stub& inference() { return *inference_; }
  v1::Cluster::Stub& cluster() { return *cluster_; }

  grpc::Status Raw(const std::string& method, const std::string& request,
                   std::string* response = nullptr) const {
    return RawCall(channel_, method, request, response);
  }

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
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Cluster::Stub> cluster_;
};

inline v1::GenerateRequest APrompt(int64_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text("hello");
  request.mutable_parameters()->set_max_tokens(max_tokens);
  return request;
}

}  // namespace witan

#endif  // WITAN_TESTS_API_RUNNING_API_H_

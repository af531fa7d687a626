#include "coordinator/api/inference_service.h"

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/api/messages.h"
#include "proto/rpc_status.h"

namespace witan {
namespace {

void FinishUnary(grpc::ServerUnaryReactor& reactor,
                 grpc::CallbackServerContext& rpc, const absl::Status& status) {
  AddRetryPushback(rpc, status);
  reactor.Finish(ToGrpcStatus(status));
}

}  // namespace

InferenceService::InferenceService(const InferenceServiceOptions& options,
                                   const ServedModel& model, Engine& engine,
                                   ApiMetrics& metrics, const Clock& clock)
    : options_(options),
      model_(model),
      metrics_(metrics),
      registry_(options.max_tenant_streams()),
      text_pool_(options.num_text_threads, kMaxTextPoolQueue),
      context_{.model = model,
               .engine = engine,
               .text_pool = text_pool_,
               .registry = registry_,
               .metrics = metrics,
               .clock = clock},
      watch_([this] { WatchStreams(); }) {}

InferenceService::~InferenceService() { Shutdown(); }

void InferenceService::Shutdown() {
  text_pool_.Shutdown();
  if (!watch_.joinable()) return;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  stopping_changed_.NotifyAll();
  watch_.join();
}

void InferenceService::CutStalledStreams(Micros now) {
  for (const std::shared_ptr<GenerationCall>& call : registry_.All()) {
    call->CutIfStalled(now);
  }
}

void InferenceService::WatchStreams() {
  while (true) {
    const auto next = std::chrono::steady_clock::now() +
                      std::chrono::milliseconds(kStreamWatchIntervalMs);
    {
      MutexLock lock(mutex_);
      while (!stopping_ && stopping_changed_.WaitUntil(mutex_, next)) {
      }
      if (stopping_) return;
    }
    // A process that was stopped itself has yet to hear what its clients took.
    const auto late = std::chrono::steady_clock::now() - next;
    if (late > std::chrono::milliseconds(kMaxTickDelayMs)) continue;
    CutStalledStreams(context_.clock.Now());
  }
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::StartGeneration(
    GenerationMethod method, grpc::CallbackServerContext* rpc,
    const grpc::ByteBuffer& request) {
  const absl::Status size_status = CheckRequestSize(request.Length());
  if (!size_status.ok()) {
    metrics_.OnRejected("request_bytes");
    return GenerationCall::Refuse(context_, method, rpc, size_status);
  }
  if (num_streams_.fetch_add(1) >= options_.max_concurrent_streams) {
    --num_streams_;
    metrics_.OnRejected("streams");
    return GenerationCall::Refuse(
        context_, method, rpc,
        ResourceExhausted("{} streams are open, as many as allowed; retry "
                          "later",
                          options_.max_concurrent_streams));
  }
  return GenerationCall::Start(context_, method, rpc, request,
                               [this] { --num_streams_; });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request) {
  return StartGeneration(GenerationMethod::kGenerate, rpc, *request);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Chat(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request) {
  return StartGeneration(GenerationMethod::kChat, rpc, *request);
}

template <typename Request, typename Response>
absl::Status InferenceService::Answer(
    const grpc::ByteBuffer& request, grpc::ByteBuffer& response,
    absl::StatusOr<Response> (InferenceService::*answer)(const Request&)) {
  Request parsed;
  RETURN_IF_ERROR(ParseMessage(request, parsed));
  ASSIGN_OR_RETURN(const Response result, (this->*answer)(parsed));
  return SerializeMessage(result, response);
}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* InferenceService::AnswerNow(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response,
    absl::StatusOr<Response> (InferenceService::*answer)(const Request&)) {
  grpc::ServerUnaryReactor* const reactor = rpc->DefaultReactor();
  absl::Status status = CheckRequestSize(request->Length());
  if (!status.ok()) {
    metrics_.OnRejected("request_bytes");
  } else {
    status = Answer(*request, *response, answer);
  }
  FinishUnary(*reactor, *rpc, status);
  return reactor;
}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* InferenceService::AnswerInTextPool(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response,
    absl::StatusOr<Response> (InferenceService::*answer)(const Request&)) {
  grpc::ServerUnaryReactor* const reactor = rpc->DefaultReactor();
  const absl::Status size_status = CheckRequestSize(request->Length());
  if (!size_status.ok()) {
    metrics_.OnRejected("request_bytes");
    FinishUnary(*reactor, *rpc, size_status);
    return reactor;
  }
  if (num_text_calls_.fetch_add(1) >= kMaxTextCalls) {
    --num_text_calls_;
    metrics_.OnRejected("text_calls");
    FinishUnary(*reactor, *rpc,
                ResourceExhausted("{} calls wait for the tokenizer, as many as "
                                  "may; retry later",
                                  kMaxTextCalls));
    return reactor;
  }
  // `rpc` and `response` live until the reactor is finished.
  const absl::Status accepted =
      text_pool_.Submit([this, rpc, reactor, bytes = grpc::ByteBuffer(*request),
                         response, answer] {
        // Nobody waits for what a client, or the end of the server, cut off.
        const absl::Status status = rpc->IsCancelled()
                                        ? Cancelled("the call was cancelled")
                                        : Answer(bytes, *response, answer);
        --num_text_calls_;
        FinishUnary(*reactor, *rpc, status);
      });
  if (!accepted.ok()) {
    --num_text_calls_;
    if (absl::IsResourceExhausted(accepted)) metrics_.OnRejected("text_pool");
    FinishUnary(*reactor, *rpc, accepted);
  }
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Cancel(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AnswerNow(rpc, request, response, &InferenceService::DoCancel);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AnswerInTextPool(rpc, request, response,
                          &InferenceService::DoTokenize);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AnswerInTextPool(rpc, request, response,
                          &InferenceService::DoDetokenize);
}

grpc::ServerUnaryReactor* InferenceService::ListModels(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AnswerNow(rpc, request, response, &InferenceService::DoListModels);
}

grpc::ServerUnaryReactor* InferenceService::GetModel(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AnswerNow(rpc, request, response, &InferenceService::DoGetModel);
}

absl::StatusOr<v1::CancelResponse> InferenceService::DoCancel(
    const v1::CancelRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request));
  const std::shared_ptr<GenerationCall> call =
      registry_.Find(request.request_id());
  if (call == nullptr) {
    return NotFound("no request with request_id \"{}\" is in flight",
                    request.request_id());
  }
  call->CancelChoices();
  return v1::CancelResponse();
}

absl::StatusOr<v1::TokenizeResponse> InferenceService::DoTokenize(
    const v1::TokenizeRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request, model_.facts));
  const absl::StatusOr<std::vector<TokenId>> token_ids =
      model_.tokenizer->Encode(
          request.text(), {.add_special_tokens = request.add_special_tokens(),
                           .parse_special = true});
  RETURN_IF_ERROR(BlameField(token_ids.status(), "text"));
  v1::TokenizeResponse response;
  response.mutable_token_ids()->Add(token_ids->begin(), token_ids->end());
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> InferenceService::DoDetokenize(
    const v1::DetokenizeRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request, model_.facts));
  // Ids between the tokenizer's vocabulary and the model's name no token.
  std::vector<TokenId> known;
  for (const TokenId id : request.token_ids()) {
    if (id < model_.tokenizer->vocab_size()) known.push_back(id);
  }
  absl::StatusOr<std::string> text =
      model_.tokenizer->Decode(known, request.skip_special_tokens());
  RETURN_IF_ERROR(BlameField(text.status(), "token_ids"));
  v1::DetokenizeResponse response;
  response.set_text(*std::move(text));
  return response;
}

absl::StatusOr<v1::ListModelsResponse> InferenceService::DoListModels(
    const v1::ListModelsRequest&) {
  v1::ListModelsResponse response;
  *response.add_models() = ToProto(model_);
  for (const AdapterInfo& adapter : context_.engine.Adapters()) {
    if (adapter.state != AdapterState::kReady) continue;
    *response.add_models() = AdapterProto(model_, adapter.name);
  }
  return response;
}

absl::StatusOr<v1::Model> InferenceService::DoGetModel(
    const v1::GetModelRequest& request) {
  for (const AdapterInfo& adapter : context_.engine.Adapters()) {
    if (adapter.name == request.model() &&
        adapter.state == AdapterState::kReady) {
      return AdapterProto(model_, adapter.name);
    }
  }
  RETURN_IF_ERROR(CheckRequest(request, model_.facts));
  return ToProto(model_);
}

}  // namespace witan

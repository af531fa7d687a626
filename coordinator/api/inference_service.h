#ifndef WITAN_COORDINATOR_API_INFERENCE_SERVICE_H_
#define WITAN_COORDINATOR_API_INFERENCE_SERVICE_H_

#include <absl/status/statusor.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/generation_call.h"
#include "coordinator/api/served_model.h"
#include "coordinator/cluster/engine.h"
#include "coordinator/text/text_pool.h"
#include "proto/inference.grpc.pb.h"

namespace witan {

// Every method takes and gives bytes (see messages.h).
using RawInferenceService = v1::Inference::WithRawCallbackMethod_Generate<
    v1::Inference::WithRawCallbackMethod_Chat<
        v1::Inference::WithRawCallbackMethod_Cancel<
            v1::Inference::WithRawCallbackMethod_Tokenize<
                v1::Inference::WithRawCallbackMethod_Detokenize<
                    v1::Inference::WithRawCallbackMethod_ListModels<
                        v1::Inference::WithRawCallbackMethod_GetModel<
                            v1::Inference::Service>>>>>>>;

struct InferenceServiceOptions {
  // Generate and Chat streams open at once, and those of one tenant; more are
  // RESOURCE_EXHAUSTED.
  int max_concurrent_streams = 0;
  int max_tenant_streams() const {
    return static_cast<int>(MaxOfOneTenant(max_concurrent_streams));
  }
  int num_text_threads = 1;
};

// witan.v1.Inference. Thread-safe; no call blocks a gRPC thread.
class InferenceService final : public RawInferenceService {
 public:
  // The arguments outlive the service, the service every server that holds it.
  InferenceService(const InferenceServiceOptions& options,
                   const ServedModel& model, Engine& engine,
                   ApiMetrics& metrics, const Clock& clock);
  ~InferenceService() override;

  // Once no RPC is open: nothing calls the engine after it has returned. A
  // stream may end while its text is still worked on. Not thread-safe; nothing
  // when called again.
  void Shutdown();

  // Cuts off the clients that took no message for kSlowReaderTimeoutMs; called
  // every kStreamWatchIntervalMs.
  void CutStalledStreams(Micros now);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(
      grpc::CallbackServerContext* rpc,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Chat(
      grpc::CallbackServerContext* rpc,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* rpc,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* rpc,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* rpc,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;

 private:
  grpc::ServerWriteReactor<grpc::ByteBuffer>* StartGeneration(
      GenerationMethod method, grpc::CallbackServerContext* rpc,
      const grpc::ByteBuffer& request);
  // Runs `answer` on the parsed request.
  template <typename Request, typename Response>
  absl::Status Answer(
      const grpc::ByteBuffer& request, grpc::ByteBuffer& response,
      absl::StatusOr<Response> (InferenceService::*answer)(const Request&));
  // Answers on gRPC's thread, for what takes no time and must not wait for
  // other requests' texts.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* AnswerNow(
      grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response,
      absl::StatusOr<Response> (InferenceService::*answer)(const Request&));
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* AnswerInTextPool(
      grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response,
      absl::StatusOr<Response> (InferenceService::*answer)(const Request&));

  absl::StatusOr<v1::CancelResponse> DoCancel(const v1::CancelRequest& request);
  absl::StatusOr<v1::TokenizeResponse> DoTokenize(
      const v1::TokenizeRequest& request);
  absl::StatusOr<v1::DetokenizeResponse> DoDetokenize(
      const v1::DetokenizeRequest& request);
  absl::StatusOr<v1::ListModelsResponse> DoListModels(
      const v1::ListModelsRequest& request);
  absl::StatusOr<v1::Model> DoGetModel(const v1::GetModelRequest& request);

  // Looks after streams that nobody reads.
  void WatchStreams();

  const InferenceServiceOptions options_;
  const ServedModel& model_;
  ApiMetrics& metrics_;
  std::atomic<int> num_streams_{0};
  std::atomic<int> num_text_calls_{0};  // Tokenize and Detokenize
  CallRegistry registry_;
  TextPool text_pool_;
  const GenerationContext context_;

  Mutex mutex_;
  CondVar stopping_changed_;
  bool stopping_ WITAN_GUARDED_BY(mutex_) = false;
  std::thread watch_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_INFERENCE_SERVICE_H_

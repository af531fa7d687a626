#ifndef WITAN_COORDINATOR_API_GENERATION_CALL_H_
#define WITAN_COORDINATOR_API_GENERATION_CALL_H_

#include <absl/status/status.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/call_registry.h"
#include "coordinator/api/choice_text.h"
#include "coordinator/api/prompt_pieces.h"
#include "coordinator/api/served_model.h"
#include "coordinator/cluster/engine.h"
#include "coordinator/text/stop.h"
#include "coordinator/text/text_pool.h"
#include "proto/generation_request.h"
#include "proto/inference.pb.h"

namespace witan {

// What a call needs; all of it outlives every call.
struct GenerationContext {
  const ServedModel& model;
  Engine& engine;
  TextPool& text_pool;
  CallRegistry& registry;
  ApiMetrics& metrics;
  const Clock& clock;
};

enum class GenerationMethod { kGenerate, kChat };

// One Generate or Chat stream, from the request's bytes to the status.
//
// gRPC reacts on its threads, text work runs in the text pool, tokens arrive
// through the choices' sinks on the replica's thread; none of them waits. At
// most one write is in flight; what arrives meanwhile is merged into chunks of
// up to kMaxChunkTokens of a choice. A client that leaves kMaxUnreadTokens
// unread is not served until it has taken half of them, and one that takes no
// message for kSlowReaderTimeoutMs is cut off. The stream ends when all choices
// have, or with the first error, or when the client goes away; then the
// sequences still running are cancelled. Sinks share ownership and may outlive
// the stream.
class GenerationCall final
    : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
      public std::enable_shared_from_this<GenerationCall> {
 public:
  // Starts a call and returns the reactor that gRPC wants. `on_end` runs once,
  // when the stream has ended and before the client learns that.
  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(
      const GenerationContext& context, GenerationMethod method,
      grpc::CallbackServerContext* rpc, const grpc::ByteBuffer& request,
      std::function<void()> on_end);

  // Ends the call at once with an error; nothing was started for it.
  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Refuse(
      const GenerationContext& context, GenerationMethod method,
      grpc::CallbackServerContext* rpc, const absl::Status& status);

  // Ends all choices with FINISH_REASON_CANCELLED. Thread-safe.
  void CancelChoices();
  // Cuts the client off if it has taken no message for too long. Thread-safe.
  void CutIfStalled(Micros now);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class ChoiceSink;
  friend class ChoiceSink;
  // A prompt that a stream begins with; its messages are made as they are read.
  struct Echo {
    int choice = 0;
    PromptPieces prompt;
  };

  GenerationCall(const GenerationContext& context, GenerationMethod method,
                 grpc::CallbackServerContext* rpc,
                 std::function<void()> on_end);

  // --- In the text pool -----------------------------------------------------
  void Prepare(const grpc::ByteBuffer& bytes);
  absl::Status ReadAndSubmit(const grpc::ByteBuffer& bytes);
  // False: the stream has ended meanwhile.
  absl::StatusOr<bool> Register(const GenerationRequest& request);
  absl::StatusOr<GenerationRequest> Read(const grpc::ByteBuffer& bytes) const;
  absl::StatusOr<std::vector<TokenId>> Tokenize(
      const GenerationRequest& request) const;
  absl::Status SubmitChoices(const GenerationRequest& request,
                             std::vector<TokenId> token_ids);
  // Sees to it that the stream of `choice` begins with the prompt, if that is
  // asked for. Returns what is left for its sink to send.
  std::unique_ptr<PromptPieces> BeginPrompt(
      const GenerationRequest& request,
      const std::shared_ptr<const std::vector<TokenId>>& prompt, int choice);

  // --- Any thread -----------------------------------------------------------

  // Merges `chunk` into what waits for its choice.
  void AddChunk(v1::GenerateResponse chunk);
  void EndChoice(FinishReason reason, v1::GenerateResponse last_chunk);
  // Ends the stream after what is pending, unless it has its end already;
  // `rejected_by`: what had no room for it, to be counted.
  void Fail(const absl::Status& status, const char* rejected_by = nullptr);
  void CancelSequences();
  // Pauses or resumes all sequences, as there is much or little to be read.
  // Under the mutex, so that the engine hears of it in order.
  void UpdatePause() WITAN_REQUIRES(mutex_);
  // The next message to write, if there is one.
  std::optional<v1::GenerateResponse> TakeNext() WITAN_REQUIRES(mutex_);
  // Starts the next write, or finishes the stream.
  void Advance();
  // Gives back what the stream holds of the server: its id, its place among the
  // streams. Before the client hears of the end, who may use both again then.
  void Release();

  const GenerationContext context_;
  const GenerationMethod method_;
  grpc::CallbackServerContext* const rpc_;  // used before Finish only
  const std::function<void()> on_end_;
  const Micros arrived_at_;
  const std::optional<Micros> deadline_;
  std::shared_ptr<GenerationCall> self_;  // until OnDone

  Mutex mutex_;
  // Registered under this id; empty before.
  std::string request_id_ WITAN_GUARDED_BY(mutex_);
  std::vector<SequenceId> sequences_ WITAN_GUARDED_BY(mutex_);
  bool cancel_sequences_ WITAN_GUARDED_BY(mutex_) = false;
  int open_choices_ WITAN_GUARDED_BY(mutex_) = 0;
  // Before any chunk; those of their choices.
  std::deque<Echo> echoes_ WITAN_GUARDED_BY(mutex_);
  // Chunks to write; only the last one of each choice has room for more.
  std::deque<v1::GenerateResponse> pending_ WITAN_GUARDED_BY(mutex_);
  int64_t num_unread_tokens_ WITAN_GUARDED_BY(mutex_) = 0;  // of pending_
  bool paused_ WITAN_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ WITAN_GUARDED_BY(mutex_);
  std::string outcome_ WITAN_GUARDED_BY(mutex_);
  bool write_in_flight_ WITAN_GUARDED_BY(mutex_) = false;
  Micros write_started_at_ WITAN_GUARDED_BY(mutex_) = 0;
  bool client_gone_ WITAN_GUARDED_BY(mutex_) = false;
  bool being_cut_ WITAN_GUARDED_BY(mutex_) = false;  // rpc_ is in use
  bool finished_ WITAN_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer writing_;  // of the write in flight
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_GENERATION_CALL_H_

#include "coordinator/api/generation_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/api/chat_input.h"
#include "coordinator/api/messages.h"
#include "coordinator/api/stream_chunk.h"
#include "coordinator/text/bad_words.h"
#include "coordinator/text/stop.h"
#include "proto/rpc_status.h"

namespace witan {
namespace {

uint64_t RandomBits() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

// The call's deadline on `clock`; none if the client set none.
std::optional<Micros> DeadlineOf(const grpc::CallbackServerContext& rpc,
                                 const Clock& clock) {
  using std::chrono::system_clock;
  const system_clock::time_point deadline = rpc.deadline();
  if (deadline == system_clock::time_point::max()) return std::nullopt;
  const Micros left = std::chrono::duration_cast<std::chrono::microseconds>(
                          deadline - system_clock::now())
                          .count();
  return clock.Now() + left;
}

// Tokens that one sequence may have on every replica that serves: a small cache
// may hold less than the context. UNAVAILABLE when none serves.
absl::StatusOr<int64_t> MaxSequenceTokens(const GenerationContext& context) {
  int64_t max_tokens = context.model.facts.max_context_tokens;
  bool serving = false;
  std::string reason;
  for (const auto& snapshot : context.engine.Snapshots()) {
    if (snapshot->state == ReplicaState::kServing) {
      serving = true;
      max_tokens = std::min(max_tokens,
                            (snapshot->limits.num_blocks - 1) * kBlockTokens);
    } else if (reason.empty()) {
      reason = snapshot->not_serving_reason;
    }
  }
  if (!serving) return Unavailable("not serving yet: {}", reason);
  return max_tokens;
}

// A prompt is scored once, for the stream of choice 0.
SamplingParams SamplingOf(const GenerationRequest& request, int choice) {
  SamplingParams sampling = request.sampling;
  if (choice > 0) sampling.num_prompt_logprobs = -1;
  return sampling;
}

const char* NameOf(GenerationMethod method) {
  return method == GenerationMethod::kChat ? "chat" : "generate";
}

class RefusedCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedCall(const absl::Status& status) {
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

}  // namespace

// Turns the tokens of one choice into chunks. On the replica's thread.
class GenerationCall::ChoiceSink final : public TokenSink {
 public:
  // `prompt`: what is left to be sent of it, with its scores; null: nothing.
  ChoiceSink(std::shared_ptr<GenerationCall> call,
             const GenerationRequest& request, ChoiceText text,
             std::unique_ptr<PromptPieces> prompt, int choice,
             Micros submitted_at)
      : call_(std::move(call)),
        request_id_(request.request_id),
        choice_(choice),
        seed_(request.sampling.seed),
        wants_logprobs_(request.sampling.num_top_logprobs >= 0),
        submitted_at_(submitted_at),
        text_(std::move(text)),
        prompt_(std::move(prompt)) {}

  bool OnToken(int64_t index, const SampledToken& token) override {
    Observe();
    v1::GenerateResponse chunk = NewChunk(index);
    chunk.add_token_ids(token.token_id);
    if (wants_logprobs_) AddLogprobs(token, *chunk.add_logprobs());
    SetText(text_.Push(index, token.token_id), chunk);
    num_tokens_ = index + 1;
    call_->AddChunk(std::move(chunk));
    return !text_.stopped();
  }

  void OnPromptScores(int64_t /*first_index*/,
                      std::vector<SampledToken> scores) override {
    if (prompt_ == nullptr) return;
    for (size_t next = 0; next < scores.size();) {
      v1::GenerateResponse chunk = NewChunk(0);
      *chunk.mutable_prompt() = prompt_->Next(std::min<int64_t>(
          kMaxChunkTokens, std::ssize(scores) - static_cast<int64_t>(next)));
      for (int i = 0; i < chunk.prompt().token_ids_size(); ++i) {
        AddLogprobs(scores[next++], *chunk.mutable_prompt()->add_logprobs());
      }
      call_->AddChunk(std::move(chunk));
    }
  }

  std::optional<TokenId> NextForcedToken() override {
    return text_.NextForcedToken();
  }

  void OnFinished(absl::StatusOr<FinishReason> reason,
                  const SequenceUsage& usage) override {
    if (absl::IsResourceExhausted(reason.status())) {
      // Its choices are refused together, and it is one request.
      call_->Fail(reason.status(), "queue");
      return;
    }
    call_->context_.metrics.OnQueued(TextUs() + usage.queued_us);
    call_->context_.metrics.OnReasoning(text_.num_reasoning_tokens());
    if (!reason.ok()) {
      call_->Fail(reason.status());
      return;
    }
    v1::GenerateResponse chunk = NewChunk(num_tokens_);
    SetText(text_.Finish(), chunk);
    chunk.set_finish_reason(ToProto(*reason));
    v1::Usage& used = *chunk.mutable_usage();
    used.set_prompt_tokens(usage.num_prompt_tokens);
    used.set_completion_tokens(usage.num_output_tokens);
    used.set_cached_tokens(usage.num_cached_tokens);
    used.set_reasoning_tokens(text_.num_reasoning_tokens());
    SetTimings(usage, *chunk.mutable_timings());
    chunk.set_seed(seed_);
    call_->EndChoice(*reason, std::move(chunk));
  }

 private:
  v1::GenerateResponse NewChunk(int64_t index) const {
    v1::GenerateResponse chunk;
    chunk.set_request_id(request_id_);
    chunk.set_choice(choice_);
    chunk.set_token_index(index);
    return chunk;
  }

  static void SetText(ChoiceText::Piece piece, v1::GenerateResponse& chunk) {
    chunk.set_reasoning(std::move(piece.reasoning));
    chunk.set_text(std::move(piece.text));
  }

  void Observe() {
    const Micros now = call_->context_.clock.Now();
    if (last_token_at_.has_value()) {
      call_->context_.metrics.OnLaterToken(now - *last_token_at_);
    } else {
      call_->context_.metrics.OnFirstToken(now - call_->arrived_at_);
    }
    last_token_at_ = now;
  }

  // Until its text was tokens.
  Micros TextUs() const { return submitted_at_ - call_->arrived_at_; }

  void SetTimings(const SequenceUsage& usage, v1::Timings& out) const {
    const auto ms = [](Micros us) { return static_cast<double>(us) * 1e-3; };
    const Micros text_us = TextUs();
    out.set_queue_ms(ms(text_us + usage.queued_us));
    if (usage.num_output_tokens == 0) return;
    out.set_prefill_ms(ms(usage.first_token_us - usage.queued_us));
    out.set_time_to_first_token_ms(ms(text_us + usage.first_token_us));
    out.set_decode_ms(ms(usage.total_us - usage.first_token_us));
  }

  const std::shared_ptr<GenerationCall> call_;
  const std::string request_id_;
  const int choice_;
  const uint64_t seed_;
  const bool wants_logprobs_;
  const Micros submitted_at_;
  ChoiceText text_;
  const std::unique_ptr<PromptPieces> prompt_;
  int64_t num_tokens_ = 0;
  std::optional<Micros> last_token_at_;
};

GenerationCall::GenerationCall(const GenerationContext& context,
                               GenerationMethod method,
                               grpc::CallbackServerContext* rpc,
                               std::function<void()> on_end)
    : context_(context),
      method_(method),
      rpc_(rpc),
      on_end_(std::move(on_end)),
      arrived_at_(context.clock.Now()),
      deadline_(DeadlineOf(*rpc, context.clock)) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationCall::Start(
    const GenerationContext& context, GenerationMethod method,
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer& request,
    std::function<void()> on_end) {
  std::shared_ptr<GenerationCall> call(
      new GenerationCall(context, method, rpc, std::move(on_end)));
  call->self_ = call;
  context.metrics.OnRequestStarted();
  const absl::Status status = context.text_pool.Submit(
      [call, bytes = grpc::ByteBuffer(request)] { call->Prepare(bytes); });
  if (!status.ok()) {
    if (absl::IsResourceExhausted(status)) {
      context.metrics.OnRejected("text_pool");
    }
    call->Fail(status);
  }
  return call.get();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationCall::Refuse(
    const GenerationContext& context, GenerationMethod method,
    grpc::CallbackServerContext* rpc, const absl::Status& status) {
  context.metrics.OnRequestRefused(NameOf(method), OutcomeOf(status));
  AddRetryPushback(*rpc, status);
  return new RefusedCall(status);
}

void GenerationCall::Prepare(const grpc::ByteBuffer& bytes) {
  const absl::Status status = ReadAndSubmit(bytes);
  if (!status.ok()) Fail(status);
}

absl::StatusOr<GenerationRequest> GenerationCall::Read(
    const grpc::ByteBuffer& bytes) const {
  if (method_ == GenerationMethod::kGenerate) {
    v1::GenerateRequest request;
    RETURN_IF_ERROR(ParseMessage(bytes, request));
    return ReadRequest(request, context_.model.facts);
  }
  v1::ChatRequest request;
  RETURN_IF_ERROR(ParseMessage(bytes, request));
  if (context_.model.chat_template == nullptr) {
    return FailedPrecondition(
        "model \"{}\" has no chat template; use Generate, or serve a model "
        "whose directory has one",
        context_.model.facts.name);
  }
  return ReadRequest(request, context_.model.facts);
}

absl::Status GenerationCall::ReadAndSubmit(const grpc::ByteBuffer& bytes) {
  {
    MutexLock lock(mutex_);
    if (client_gone_) return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(GenerationRequest request, Read(bytes));
  if (request.request_id.empty()) {
    request.request_id = fmt::format("{:016x}", RandomBits());
  }
  ASSIGN_OR_RETURN(const int64_t max_tokens, MaxSequenceTokens(context_));
  ASSIGN_OR_RETURN(const bool is_open, Register(request));
  if (!is_open) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, Tokenize(request));
  RETURN_IF_ERROR(
      FitToContext(request, static_cast<int64_t>(prompt.size()), max_tokens));
  if (!request.has_seed) request.sampling.seed = RandomBits();
  absl::StatusOr<std::vector<std::vector<TokenId>>> bad_words =
      EncodeBadWords(request.bad_words, *context_.model.tokenizer);
  RETURN_IF_ERROR(BlameField(bad_words.status(), "parameters.bad_words"));
  request.sampling.bad_words = *std::move(bad_words);
  if (request.thinking_budget_tokens && !context_.model.reasoning) {
    return BlameField(
        InvalidArgument("is set, and model \"{}\" does not think: it has no "
                        "reasoning markers (--reasoning-markers)",
                        context_.model.facts.name),
        "parameters.thinking_budget_tokens");
  }
  return SubmitChoices(request, prompt);
}

absl::StatusOr<bool> GenerationCall::Register(
    const GenerationRequest& request) {
  const std::string& request_id = request.request_id;
  const absl::Status inserted =
      context_.registry.Insert(request_id, request.tenant, shared_from_this());
  if (absl::IsResourceExhausted(inserted)) {
    context_.metrics.OnRejected("tenant_streams");
  }
  RETURN_IF_ERROR(inserted);
  bool finished = false;
  {
    MutexLock lock(mutex_);
    request_id_ = request_id;
    finished = finished_;
  }
  if (finished) context_.registry.Remove(request_id, this);
  return !finished;
}

absl::StatusOr<std::vector<TokenId>> GenerationCall::Tokenize(
    const GenerationRequest& request) const {
  if (!request.token_ids.empty()) return request.token_ids;
  const ServedModel& model = context_.model;
  const bool is_chat = method_ == GenerationMethod::kChat;
  const char* const field = is_chat ? "messages" : "text";
  absl::StatusOr<std::string> text = request.text;
  if (is_chat) {
    ASSIGN_OR_RETURN(const ChatTemplateInput input,
                     TemplateInput(request, *model.tokenizer));
    text = model.chat_template->Render(input);
  }
  RETURN_IF_ERROR(BlameField(text.status(), field));
  absl::StatusOr<std::vector<TokenId>> token_ids = model.tokenizer->Encode(
      *text, {.add_special_tokens = request.add_special_tokens,
              .parse_special = true});
  RETURN_IF_ERROR(BlameField(token_ids.status(), field));
  return token_ids;
}

std::unique_ptr<PromptPieces> GenerationCall::BeginPrompt(
    const GenerationRequest& request,
    const std::shared_ptr<const std::vector<TokenId>>& prompt, int choice) {
  const bool has_scores = SamplingOf(request, choice).num_prompt_logprobs >= 0;
  if (!has_scores && !request.echo) return nullptr;
  PromptPieces pieces(prompt, *context_.model.tokenizer, request.echo,
                      request.skip_special_tokens);
  if (!has_scores) {
    MutexLock lock(mutex_);
    echoes_.push_back({choice, std::move(pieces)});
    return nullptr;
  }
  // Nothing comes before the first token, so it has no score.
  v1::GenerateResponse chunk;
  chunk.set_request_id(request.request_id);
  chunk.set_choice(choice);
  *chunk.mutable_prompt() = pieces.Next(1);
  chunk.mutable_prompt()->add_logprobs();
  AddChunk(std::move(chunk));
  return std::make_unique<PromptPieces>(std::move(pieces));
}

absl::Status GenerationCall::SubmitChoices(const GenerationRequest& request,
                                           std::vector<TokenId> token_ids) {
  ASSIGN_OR_RETURN(const StopMatcher matcher,
                   StopMatcher::Create(request.stop.stop_strings,
                                       request.include_stop_string));
  {
    MutexLock lock(mutex_);
    if (client_gone_) return absl::OkStatus();
    open_choices_ = request.num_choices;
  }
  const auto prompt =
      std::make_shared<const std::vector<TokenId>>(std::move(token_ids));
  context_.metrics.OnPrompt(std::ssize(*prompt));
  const ChoiceText text =
      MakeChoiceText(context_.model, request, matcher, *prompt);
  std::optional<SequenceId> first;
  for (int choice = 0; choice < request.num_choices; ++choice) {
    SequenceSpec spec{.prompt = *prompt,
                      .sampling = SamplingOf(request, choice),
                      .stop = request.stop,
                      .choice = choice,
                      .tenant = request.tenant,
                      .priority = request.priority,
                      .adapter_name = request.adapter_name,
                      .beside = first,
                      .deadline = deadline_};
    auto sink = std::make_unique<ChoiceSink>(
        shared_from_this(), request, text, BeginPrompt(request, prompt, choice),
        choice, context_.clock.Now());
    const absl::StatusOr<SequenceId> id =
        context_.engine.Submit(std::move(spec), std::move(sink));
    if (!id.ok()) {
      if (absl::IsResourceExhausted(id.status())) {
        context_.metrics.OnRejected("inbox");
      }
      return id.status();
    }
    if (!first) first = *id;
    bool cancel = false;
    {
      MutexLock lock(mutex_);
      cancel = cancel_sequences_;
      if (!cancel) sequences_.push_back(*id);
      if (paused_) context_.engine.Pause(*id);
    }
    if (cancel) context_.engine.Cancel(*id);
  }
  Advance();  // echoes
  return absl::OkStatus();
}

void GenerationCall::AddChunk(v1::GenerateResponse chunk) {
  {
    MutexLock lock(mutex_);
    if (client_gone_ || end_.has_value()) return;
    num_unread_tokens_ += NumTokens(chunk);
    const auto last_of_choice = std::find_if(
        pending_.rbegin(), pending_.rend(),
        [&chunk](const auto& p) { return p.choice() == chunk.choice(); });
    if (last_of_choice != pending_.rend() &&
        NumTokens(*last_of_choice) + NumTokens(chunk) <= kMaxChunkTokens) {
      Merge(*last_of_choice, std::move(chunk));
    } else {
      pending_.push_back(std::move(chunk));
    }
    UpdatePause();
  }
  Advance();
}

void GenerationCall::EndChoice(FinishReason reason,
                               v1::GenerateResponse last_chunk) {
  AddChunk(std::move(last_chunk));
  {
    MutexLock lock(mutex_);
    if (outcome_.empty() || reason == FinishReason::kCancelled) {
      outcome_ = OutcomeOf(reason);
    }
    --open_choices_;
    if (open_choices_ == 0 && !end_.has_value()) end_ = absl::OkStatus();
  }
  Advance();
}

void GenerationCall::Fail(const absl::Status& status, const char* rejected_by) {
  {
    MutexLock lock(mutex_);
    if (!end_.has_value()) {
      end_ = status;
      // Before the client knows.
      if (rejected_by != nullptr) context_.metrics.OnRejected(rejected_by);
    }
  }
  CancelSequences();
  Advance();
}

void GenerationCall::CancelChoices() { CancelSequences(); }

void GenerationCall::CancelSequences() {
  std::vector<SequenceId> sequences;
  {
    MutexLock lock(mutex_);
    cancel_sequences_ = true;
    sequences.swap(sequences_);
  }
  for (const SequenceId id : sequences) context_.engine.Cancel(id);
}

void GenerationCall::UpdatePause() {
  if (!paused_ && num_unread_tokens_ > kMaxUnreadTokens) {
    paused_ = true;
    for (const SequenceId id : sequences_) context_.engine.Pause(id);
  } else if (paused_ && num_unread_tokens_ <= kMaxUnreadTokens / 2) {
    paused_ = false;
    for (const SequenceId id : sequences_) context_.engine.Resume(id);
  }
}

void GenerationCall::CutIfStalled(Micros now) {
  {
    MutexLock lock(mutex_);
    if (!write_in_flight_ || client_gone_ || being_cut_ ||
        now - write_started_at_ < kSlowReaderTimeoutMs * kMicrosPerMilli) {
      return;
    }
    client_gone_ = true;
    end_ = DeadlineExceeded("the client took no message for {} s",
                            kSlowReaderTimeoutMs / 1000);
    // Until then the call is not finished, so that rpc_ lives.
    being_cut_ = true;
  }
  context_.metrics.OnSlowReaderCut();
  rpc_->TryCancel();
  CancelSequences();
  {
    MutexLock lock(mutex_);
    being_cut_ = false;
  }
  Advance();
}

std::optional<v1::GenerateResponse> GenerationCall::TakeNext() {
  if (client_gone_) return std::nullopt;
  std::optional<v1::GenerateResponse> next;
  if (!echoes_.empty()) {
    Echo& echo = echoes_.front();
    next.emplace();
    next->set_request_id(request_id_);
    next->set_choice(echo.choice);
    *next->mutable_prompt() = echo.prompt.Next(
        std::min<int64_t>(kMaxChunkTokens, echo.prompt.num_left()));
    if (echo.prompt.num_left() == 0) echoes_.pop_front();
  } else if (!pending_.empty()) {
    next = std::move(pending_.front());
    pending_.pop_front();
    num_unread_tokens_ -= NumTokens(*next);
    UpdatePause();
  }
  return next;
}

void GenerationCall::Advance() {
  std::optional<absl::Status> finish;
  {
    MutexLock lock(mutex_);
    if (write_in_flight_ || finished_ || being_cut_) return;
    std::optional<v1::GenerateResponse> next = TakeNext();
    if (next.has_value()) {
      const absl::Status status = SerializeMessage(*next, writing_);
      write_in_flight_ = status.ok();
      write_started_at_ = context_.clock.Now();
      if (!status.ok()) {
        pending_.clear();
        echoes_.clear();
        end_ = status;
      }
    }
    if (!write_in_flight_) {
      if (!end_.has_value()) return;
      finished_ = true;
      finish = *end_;
      if (!finish->ok()) outcome_ = OutcomeOf(*finish);
    }
  }
  if (finish.has_value()) {
    if (!finish->ok()) CancelSequences();
    Release();
    AddRetryPushback(*rpc_, *finish);
    Finish(ToGrpcStatus(*finish));
  } else {
    StartWrite(&writing_);
  }
}

void GenerationCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(mutex_);
    write_in_flight_ = false;
  }
  if (ok) {
    Advance();
  } else {
    OnCancel();
  }
}

void GenerationCall::OnCancel() {
  {
    MutexLock lock(mutex_);
    client_gone_ = true;
    if (!end_.has_value()) end_ = Cancelled("the client went away");
  }
  CancelSequences();
  Advance();
}

void GenerationCall::Release() {
  std::string outcome;
  std::string request_id;
  {
    MutexLock lock(mutex_);
    outcome = outcome_;
    request_id = request_id_;
  }
  if (!request_id.empty()) context_.registry.Remove(request_id, this);
  context_.metrics.OnRequestEnded(NameOf(method_), outcome,
                                  context_.clock.Now() - arrived_at_);
  on_end_();
}

void GenerationCall::OnDone() {
  const std::shared_ptr<GenerationCall> self = std::move(self_);
}

}  // namespace witan

#include "cli/generation.h"

#include <fmt/format.h>

#include <algorithm>

namespace witan {
namespace {

nlohmann::ordered_json ToJson(const std::vector<v1::TokenLogprobs>& logprobs,
                              const std::vector<int32_t>& token_ids) {
  auto list = nlohmann::ordered_json::array();
  for (size_t i = 0; i < logprobs.size(); ++i) {
    auto& entry = list.emplace_back();
    entry["token_id"] = token_ids[i];
    entry["logprob"] = logprobs[i].logprob();
    auto& top = entry["top"] = nlohmann::ordered_json::array();
    for (const v1::TokenLogprob& other : logprobs[i].top()) {
      top.push_back(
          {{"token_id", other.token_id()}, {"logprob", other.logprob()}});
    }
  }
  return list;
}

nlohmann::ordered_json ToJson(const ChoiceResult& choice) {
  nlohmann::ordered_json json;
  if (!choice.prompt_token_ids.empty()) {
    json["prompt"] = choice.prompt_text;
    json["prompt_token_ids"] = choice.prompt_token_ids;
  }
  if (!choice.prompt_logprobs.empty()) {
    json["prompt_logprobs"] =
        ToJson(choice.prompt_logprobs, choice.prompt_token_ids);
    json["prompt_logprobs"][0]["logprob"] = nullptr;  // nothing is before it
  }
  if (!choice.reasoning.empty()) json["reasoning"] = choice.reasoning;
  json["text"] = choice.text;
  json["token_ids"] = choice.token_ids;
  if (!choice.logprobs.empty()) {
    json["logprobs"] = ToJson(choice.logprobs, choice.token_ids);
  }
  json["finish_reason"] = NameOf(choice.finish_reason);
  json["usage"] = {{"prompt_tokens", choice.usage.prompt_tokens()},
                   {"completion_tokens", choice.usage.completion_tokens()},
                   {"cached_tokens", choice.usage.cached_tokens()},
                   {"reasoning_tokens", choice.usage.reasoning_tokens()}};
  json["timings"] = {
      {"queue_ms", choice.timings.queue_ms()},
      {"prefill_ms", choice.timings.prefill_ms()},
      {"time_to_first_token_ms", choice.timings.time_to_first_token_ms()},
      {"decode_ms", choice.timings.decode_ms()}};
  return json;
}

grpc::Status DataLoss(const std::string& message) {
  return grpc::Status(grpc::StatusCode::DATA_LOSS, message);
}

grpc::Status AppendPrompt(const v1::PromptPiece& piece, ChoiceResult* choice) {
  if (piece.index() != std::ssize(choice->prompt_token_ids)) {
    return DataLoss(
        fmt::format("the server sent token {} of the prompt, expected token {}",
                    piece.index(), choice->prompt_token_ids.size()));
  }
  const int num_logprobs = piece.logprobs_size();
  if (num_logprobs != 0 && num_logprobs != piece.token_ids_size()) {
    return DataLoss(fmt::format(
        "the server sent {} log-probabilities for {} tokens of the prompt",
        num_logprobs, piece.token_ids_size()));
  }
  choice->prompt_text += piece.text();
  choice->prompt_token_ids.insert(choice->prompt_token_ids.end(),
                                  piece.token_ids().begin(),
                                  piece.token_ids().end());
  choice->prompt_logprobs.insert(choice->prompt_logprobs.end(),
                                 piece.logprobs().begin(),
                                 piece.logprobs().end());
  return grpc::Status::OK;
}

}  // namespace

bool Show(const TextSink& sink, std::string_view prompt,
          std::string_view reasoning, std::string_view answer) {
  return (prompt.empty() || sink(TextKind::kPrompt, prompt)) &&
         (reasoning.empty() || sink(TextKind::kReasoning, reasoning)) &&
         (answer.empty() || sink(TextKind::kAnswer, answer));
}

grpc::Status Append(const v1::GenerateResponse& chunk, int num_choices,
                    GenerationResult* result) {
  if (chunk.choice() < 0 || chunk.choice() >= num_choices) {
    return DataLoss(fmt::format("the server sent choice {} of a request for {}",
                                chunk.choice(), num_choices));
  }
  result->choices.resize(static_cast<size_t>(num_choices));
  ChoiceResult& choice = result->choices[static_cast<size_t>(chunk.choice())];
  if (chunk.token_index() != static_cast<int64_t>(choice.token_ids.size())) {
    return grpc::Status(
        grpc::StatusCode::DATA_LOSS,
        fmt::format("the server sent token {} of choice {}, expected token {}",
                    chunk.token_index(), chunk.choice(),
                    choice.token_ids.size()));
  }
  const int num_logprobs = chunk.logprobs_size();
  if (num_logprobs != 0 && num_logprobs != chunk.token_ids_size()) {
    return grpc::Status(grpc::StatusCode::DATA_LOSS,
                        fmt::format("the server sent {} log-probabilities for "
                                    "{} tokens",
                                    num_logprobs, chunk.token_ids_size()));
  }
  if (chunk.has_prompt()) {
    const grpc::Status status = AppendPrompt(chunk.prompt(), &choice);
    if (!status.ok()) return status;
  }
  result->request_id = chunk.request_id();
  choice.reasoning += chunk.reasoning();
  choice.text += chunk.text();
  choice.token_ids.insert(choice.token_ids.end(), chunk.token_ids().begin(),
                          chunk.token_ids().end());
  choice.logprobs.insert(choice.logprobs.end(), chunk.logprobs().begin(),
                         chunk.logprobs().end());
  if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
    choice.finish_reason = chunk.finish_reason();
    choice.usage = chunk.usage();
    choice.timings = chunk.timings();
    result->seed = chunk.seed();
  }
  return grpc::Status::OK;
}

grpc::Status CheckFinished(int num_choices, const GenerationResult& result) {
  for (int i = 0; i < num_choices; ++i) {
    const size_t index = static_cast<size_t>(i);
    if (index >= result.choices.size() ||
        result.choices[index].finish_reason == v1::FINISH_REASON_UNSPECIFIED) {
      return grpc::Status(
          grpc::StatusCode::DATA_LOSS,
          fmt::format("the stream ended before choice {} of {} was finished", i,
                      num_choices));
    }
  }
  return grpc::Status::OK;
}

grpc::Status Receive(grpc::ClientContext& context,
                     grpc::ClientReaderInterface<v1::GenerateResponse>& stream,
                     int num_choices, const TextSink& sink,
                     GenerationResult* result) {
  v1::GenerateResponse chunk;
  grpc::Status failure;
  while (stream.Read(&chunk)) {
    if (!failure.ok()) continue;  // drain, so that Finish can return
    failure = Append(chunk, num_choices, result);
    if (failure.ok() && chunk.choice() == 0 &&
        !Show(sink, chunk.prompt().text(), chunk.reasoning(), chunk.text())) {
      failure = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                             "the output cannot be written; the request was "
                             "cancelled");
      context.TryCancel();
    }
  }
  const grpc::Status status = stream.Finish();
  if (!failure.ok()) return failure;
  return status.ok() ? CheckFinished(num_choices, *result) : status;
}

std::string_view NameOf(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    default:
      return "";
  }
}

nlohmann::ordered_json ToJson(const GenerationResult& result) {
  nlohmann::ordered_json json;
  if (result.choices.size() == 1) {
    json = ToJson(result.choices.front());
  } else {
    auto& list = json["choices"] = nlohmann::ordered_json::array();
    for (const ChoiceResult& choice : result.choices) {
      nlohmann::ordered_json entry = {{"index", list.size()}};
      entry.update(ToJson(choice));
      list.push_back(std::move(entry));
    }
  }
  json["seed"] = result.seed;
  json["request_id"] = result.request_id;
  return json;
}

std::string DescribeTimings(const GenerationResult& result) {
  int64_t num_tokens = 0;
  int64_t num_after_first = 0;
  double first_ms = 0;
  double decode_ms = 0;
  for (const ChoiceResult& choice : result.choices) {
    const int64_t num = static_cast<int64_t>(choice.token_ids.size());
    num_tokens += num;
    num_after_first += std::max<int64_t>(num - 1, 0);
    first_ms = std::max(first_ms, choice.timings.time_to_first_token_ms());
    decode_ms = std::max(decode_ms, choice.timings.decode_ms());
  }
  std::string text = fmt::format("{} tokens, the first after {:.3f} s",
                                 num_tokens, first_ms / 1000);
  if (num_after_first > 0 && decode_ms > 0) {
    text +=
        fmt::format(", then {:.1f} tokens/s",
                    static_cast<double>(num_after_first) * 1000 / decode_ms);
  }
  return text;
}

}  // namespace witan

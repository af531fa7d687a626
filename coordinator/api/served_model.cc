#include "coordinator/api/served_model.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan {
namespace {

absl::StatusOr<std::string> AbsoluteDirectory(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path =
      std::filesystem::canonical(directory, error);
  if (error) return NotFound("model {}: {}", directory, error.message());
  if (!std::filesystem::is_directory(path, error)) {
    return InvalidArgument(
        "model {} is not a directory; give the folder that holds config.json",
        directory);
  }
  return path.string();
}

absl::StatusOr<ModelFacts> ReadFacts(const std::string& directory,
                                     int64_t max_context_tokens) {
  ModelFacts facts;
  ASSIGN_OR_RETURN(facts.config, ReadModelConfig(directory));
  ASSIGN_OR_RETURN(facts.generation, ReadGenerationConfig(directory));
  if (max_context_tokens > facts.config.max_context_tokens) {
    return InvalidArgument(
        "--max-context is {}; the model's own context is {} "
        "(max_position_embeddings in {}/config.json)",
        max_context_tokens, facts.config.max_context_tokens, directory);
  }
  facts.max_context_tokens = max_context_tokens > 0
                                 ? max_context_tokens
                                 : facts.config.max_context_tokens;
  return facts;
}

}  // namespace

absl::StatusOr<ServedModel> LoadServedModel(
    const std::string& directory, const std::string& name,
    int64_t max_context_tokens, const std::string& reasoning_markers) {
  ServedModel model;
  ASSIGN_OR_RETURN(model.directory, AbsoluteDirectory(directory));
  ASSIGN_OR_RETURN(model.facts, ReadFacts(model.directory, max_context_tokens));
  model.facts.name =
      name.empty() ? std::filesystem::path(model.directory).filename().string()
                   : name;
  if (model.facts.name.size() > kMaxModelNameBytes ||
      !IsValidUtf8(model.facts.name)) {
    return InvalidArgument(
        "--served-model-name must be UTF-8 of at most {} bytes",
        kMaxModelNameBytes);
  }
  ASSIGN_OR_RETURN(model.tokenizer, Tokenizer::Load(model.directory));
  if (model.tokenizer->vocab_size() > model.facts.config.vocab_size) {
    return InvalidArgument(
        "{}: the tokenizer has {} tokens, the model (vocab_size in "
        "config.json) {}; they do not belong together",
        model.directory, model.tokenizer->vocab_size(),
        model.facts.config.vocab_size);
  }
  if (model.facts.generation.eos_token_ids.empty() &&
      model.tokenizer->eos_id().has_value()) {
    model.facts.generation.eos_token_ids = {*model.tokenizer->eos_id()};
  }
  for (const TokenId id : model.facts.generation.eos_token_ids) {
    if (id < 0 || id >= model.facts.config.vocab_size) {
      return InvalidArgument("{}: eos_token_id {} is not below vocab_size {}",
                             model.directory, id,
                             model.facts.config.vocab_size);
    }
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template =
      ChatTemplate::Load(model.directory);
  if (chat_template.ok()) {
    model.chat_template = *std::move(chat_template);
  } else if (chat_template.status().code() != absl::StatusCode::kNotFound) {
    return chat_template.status();
  }
  ASSIGN_OR_RETURN(model.reasoning,
                   FindReasoning(reasoning_markers, *model.tokenizer,
                                 model.chat_template.get()));
  return model;
}

v1::Model ToProto(const ServedModel& model) {
  v1::Model out;
  out.set_name(model.facts.name);
  out.set_architecture(model.facts.config.architecture);
  out.set_weights_dtype(std::string(NameOf(model.facts.config.weights)));
  out.set_max_context_tokens(model.facts.max_context_tokens);
  out.set_vocab_size(model.facts.config.vocab_size);
  for (const TokenId id : model.facts.generation.eos_token_ids) {
    out.add_eos_token_ids(id);
  }
  out.set_has_chat_template(model.chat_template != nullptr);
  *out.mutable_default_parameters() = DefaultParameters(model.facts);
  if (model.reasoning) {
    v1::Reasoning& reasoning = *out.mutable_reasoning();
    reasoning.set_begin_marker(model.reasoning->begin);
    reasoning.set_end_marker(model.reasoning->end);
    reasoning.set_closing(model.reasoning->closing);
  }
  return out;
}

}  // namespace witan
